//! The maps and settings that the programs share.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_INNER_MAP, BPF_F_NO_PREALLOC, bpf_map_type};
use aya_ebpf::btf_maps::ArrayOfMaps;
use aya_ebpf::helpers::generated::bpf_map_lookup_elem;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use probe_ebpf::abi::{
    Counter, DumpRequest, MAX_BLOCKS, MAX_SEEN_STACKS, MAX_SETS, MAX_TABLES, MAX_TARGETS, MAX_WAITING_THREADS,
    MappingBlock, MappingKey, Offsets, PlaceSet, RING_BYTES, SetKey, Settings, StackId, Target, WaitingThread,
    WokenThread, generation, period, target_flags,
};
use probe_ebpf::table::Block;

/// Overridden when the programs are loaded.
#[unsafe(no_mangle)]
static SETTINGS: Global<Settings> = Global::new(Settings {
    all: 0,
    newcomers: 0,
    user_stacks: 1,
    kernel_stacks: 1,
    min_wait_ns: 0,
    max_wait_ns: u64::MAX,
    each_wait: 0,
    fault_gap_ns: 0,
    follow_live: 0,
    hits_per_cpu: 0,
    offsets: Offsets {
        task_flags: 0,
        task_pid: 0,
        task_tgid: 0,
        task_signal: 0,
        task_state: 0,
        task_exit_state: 0,
        task_on_cpu: 0,
        task_comm: 0,
        task_runtime: 0,
        task_runtime_at_arrival: 0,
        task_arrival: 0,
        task_queued: 0,
        task_parent: 0,
        signal_live: 0,
        binprm_filename: 0,
        task_thread_memory: 0,
        task_memory: 0,
        memory_root: 0,
        vma_memory: 0,
        vma_start: 0,
        vma_end: 0,
        vma_page: 0,
        vma_file: 0,
        file_inode: 0,
        inode_number: 0,
        inode_super: 0,
        inode_changed: 0,
        inode_changed_ns: 0,
        super_device: 0,
        zero: 0,
    },
});

/// Everything that travels to user space.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Processes that are sampled, by tgid. Preallocated, so that it is safe in an NMI.
#[map]
pub static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(MAX_TARGETS, 0);

/// Stacks whose frames have travelled.
#[map]
pub static SEEN: LruHashMap<StackId, u8> = LruHashMap::with_max_entries(MAX_SEEN_STACKS, 0);

/// Threads that wait or have waited, by tid. Most hosts need a small part of its room, and nothing in an NMI does.
#[map]
pub static WAITING: HashMap<u32, WaitingThread> = HashMap::with_max_entries(MAX_WAITING_THREADS, BPF_F_NO_PREALLOC);

/// Further places of threads that wait in many.
#[map]
pub static PLACES: HashMap<SetKey, PlaceSet> = HashMap::with_max_entries(MAX_SETS, BPF_F_NO_PREALLOC);

/// Threads whose wakers are asked for, by tid.
#[map]
pub static WOKEN: HashMap<u32, WokenThread> = HashMap::with_max_entries(MAX_WAITING_THREADS, BPF_F_NO_PREALLOC);

/// What the present dump shall have.
#[map]
pub static DUMP: Array<DumpRequest> = Array::with_max_entries(1, 0);

/// Executable mappings of processes. Preallocated, and plain rather than a map of maps: its updates wait for nobody.
#[map]
pub static MAPPINGS: HashMap<MappingKey, MappingBlock> = HashMap::with_max_entries(MAX_BLOCKS, 0);

/// Unwind tables, one exact-size map for each executable, shared by all processes.
#[btf_map]
static TABLES: ArrayOfMaps<Table, { MAX_TABLES as usize }> = ArrayOfMaps::new();

/// The pattern that unwind tables must match: an array of [`Block`], whose size may differ. It is spelled out because
/// aya's array would name the type of its values, and Linux 6.1 then refuses maps that are made without type information,
/// as user space makes them.
#[repr(C)]
struct Table {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_ARRAY as usize],
    key_size: *const [i32; size_of::<u32>()],
    value_size: *const [i32; size_of::<Block>()],
    max_entries: *const [i32; 1],
    map_flags: *const [i32; BPF_F_INNER_MAP as usize],
}

/// A block of an unwind table.
#[inline(always)]
pub fn block(table: u32, number: u32) -> Option<&'static Block> {
    let table: *const Table = TABLES.get(table & (MAX_TABLES - 1))?;
    // SAFETY: the verifier knows what is in the map of maps; the array's values never move.
    unsafe { bpf_map_lookup_elem(table.cast_mut().cast(), (&raw const number).cast()).cast::<Block>().as_ref() }
}

/// By [`generation`].
#[map]
static GENERATIONS: Array<u64> = Array::with_max_entries(generation::COUNT, 0);

/// One of the [`generation`] numbers; never 0.
#[inline(always)]
pub fn generation(index: u32) -> u64 {
    GENERATIONS.get(index).map_or(0, |number| *number).wrapping_add(1)
}

/// By [`period`].
#[map]
pub static PERIODS: Array<u64> = Array::with_max_entries(period::COUNT, 0);

/// By [`Counter`].
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// One of the settings: `setting!(offsets.task_pid)`. The verifier knows its value, so that offsets can be added to
/// pointers to the kernel's structs.
macro_rules! setting {
    ($($field:ident).+) => {
        // SAFETY: a constant of the kernel object, written before the programs are loaded.
        unsafe { core::ptr::read_volatile(&raw const (*crate::maps::settings())$(.$field)+) }
    };
}
pub(crate) use setting;

pub fn settings() -> *const Settings {
    (&raw const SETTINGS).cast()
}

pub fn count(counter: Counter) {
    add(counter, 1);
}

pub fn add(counter: Counter, number: u64) {
    // SAFETY: in a map. Another program may count the same on this CPU, so that it is atomic.
    if let Some(value) = COUNTERS.get_ptr(counter as u32).and_then(|value| unsafe { value.as_ref() }) {
        crate::atomic::add(value, number);
    }
}

/// The target that a process is, if it is one.
pub fn target(tgid: u32) -> Option<Target> {
    // SAFETY: copied at once; a torn read of the two words is harmless.
    let entry = unsafe { TARGETS.get(tgid) }.copied();
    match entry {
        None if setting!(all) != 0 => Some(Target { epoch: 0, flags: target_flags::INHERIT }),
        entry => entry,
    }
}

/// How to submit an event of which there are many. The reader reads on a timer, so that they cost no context switches; it is
/// woken only when they fill the buffer faster than the timer empties it.
pub fn wakeup() -> u64 {
    /// `bpf_ringbuf_query`: bytes that wait to be read (include/uapi/linux/bpf.h), as below.
    const BPF_RB_AVAIL_DATA: u64 = 0;
    const BPF_RB_NO_WAKEUP: u64 = 1;
    const BPF_RB_FORCE_WAKEUP: u64 = 2;
    let is_filling = EVENTS.query(BPF_RB_AVAIL_DATA) > u64::from(RING_BYTES / 4);
    if is_filling { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }
}
