//! Many probes by one link: `BPF_TRACE_UPROBE_MULTI` (Linux 6.6, kernel/trace/bpf_trace.c, `bpf_uprobe_multi_link_attach`).
//!
//! A perf event for each probe, which is what aya and kernels before 6.6 know, takes the kernel some 100 ms to close, one
//! after the other, and most of that passes before the trap is taken away. Such a link first takes all its traps away, in
//! milliseconds, and then waits once.
//!
//! A program has to be loaded for this way of attaching, which aya cannot do. So its instructions are taken out of the
//! object once more, by the library with which aya does it, made to refer to the maps that aya has made, and loaded by the
//! system call itself.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::Map;
use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_insn, bpf_prog_type};
use aya_obj::{Function, Object, copy_instructions};

use super::closer;
use super::uprobes::Wanted;

/// `r0 = 0; exit`
const NOTHING: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// The programs of an object, loaded when they are first needed.
pub(super) struct Multi {
    bytes: &'static [u8],
    /// Its maps, by their names.
    maps: Vec<(String, OwnedFd)>,
    /// The object with instructions that refer to these maps, and its types.
    object: Option<(Object, OwnedFd)>,
    loaded: HashMap<&'static str, OwnedFd>,
}

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` reads, as far as it is needed here (include/uapi/linux/bpf.h).
#[repr(C)]
struct ProgramLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
}

/// The same for `BPF_BTF_LOAD`.
#[repr(C)]
struct TypesLoad {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    btf_log_true_size: u32,
}

/// The same for `BPF_LINK_CREATE` and probes in a file.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    count: u32,
    multi_flags: u32,
    pid: u32,
    padding: u32,
}

/// Probes that are set by one link. Dropping it waits until they are gone.
pub(super) struct MultiLink(Option<OwnedFd>);

impl Drop for MultiLink {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(closer::close);
    }
}

impl Multi {
    /// For an object that was loaded already, before its maps are taken out.
    pub fn new(bytes: &'static [u8], ebpf: &Ebpf) -> io::Result<Self> {
        let maps = ebpf.maps().filter_map(|(name, map)| Some((name.to_owned(), descriptor(map)?)));
        let maps = maps.map(|(name, fd)| Ok((name, fd?))).collect::<io::Result<_>>()?;
        Ok(Self { bytes, maps, object: None, loaded: HashMap::new() })
    }

    /// Loads programs before the first probe is set that needs one of them: the kernel takes a tenth of a second or more to
    /// verify one, in which the target would pay for the probes that are set already.
    pub fn load(&mut self, programs: impl IntoIterator<Item = &'static str>) -> Result<()> {
        programs.into_iter().try_for_each(|program| self.program(program).map(|_| ()))
    }

    /// Sets probes into a file as one process has it mapped: all of one file and role. The program
    /// without a name does nothing. `at_return` has it called where the functions that begin there return to.
    pub fn attach(
        &mut self,
        program: &'static str,
        at_return: bool,
        pid: u32,
        file: &Path,
        wanted: &[Wanted],
    ) -> Result<MultiLink> {
        let path = CString::new(file.as_os_str().as_encoded_bytes())?;
        let (offsets, cookies): (Vec<u64>, Vec<u64>) =
            wanted.iter().map(|wanted| (wanted.offset, u64::from(wanted.number))).unzip();
        // The kernel raises them while the probes are there, so that the program calls the tracepoint.
        let counters: Vec<u64> = wanted.iter().map(|wanted| wanted.semaphore.unwrap_or_default()).collect();
        let has_counters = counters.iter().any(|counter| *counter != 0);
        let attributes = LinkCreate {
            prog_fd: self.program(program)?.as_raw_fd() as u32,
            target_fd: 0,
            attach_type: bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32,
            flags: 0,
            path: path.as_ptr() as u64,
            offsets: offsets.as_ptr() as u64,
            ref_ctr_offsets: if has_counters { counters.as_ptr() as u64 } else { 0 },
            cookies: cookies.as_ptr() as u64,
            count: wanted.len() as u32,
            // BPF_F_UPROBE_MULTI_RETURN
            multi_flags: at_return.into(),
            pid,
            padding: 0,
        };
        Ok(MultiLink(Some(bpf(bpf_cmd::BPF_LINK_CREATE, &attributes)?)))
    }

    fn program(&mut self, name: &'static str) -> Result<&OwnedFd> {
        if name.is_empty() && !self.loaded.contains_key(name) {
            self.loaded.insert(name, load("nothing", c"GPL", &copy_instructions(&NOTHING)?, None)?);
        }
        if !self.loaded.contains_key(name) {
            let begin = thread_time();
            let object = match self.object.take() {
                Some(object) => object,
                None => parse(self.bytes, &self.maps)?,
            };
            let (object, types) = &*self.object.insert(object);
            let program = object.programs.get(name).with_context(|| format!("no program {name}"))?;
            let function = object.functions.get(&program.function_key()).context("a program without code")?;
            let fd = load(name, &program.license, &function.instructions, Some((function, types)));
            let fd = fd.with_context(|| format!("cannot load {name}"))?;
            self.loaded.insert(name, fd);
            LOADING_NS.set(LOADING_NS.get() + thread_time().saturating_sub(begin));
        }
        Ok(&self.loaded[name])
    }
}

thread_local! {
    /// What it has taken to load programs, in nanoseconds of processor time: each is loaded once, when the first probe needs it.
    static LOADING_NS: Cell<u64> = const { Cell::new(0) };
}

/// How much processor time it has taken this thread to load programs for probes: that is no cost of setting one.
pub fn loading_time() -> Duration {
    Duration::from_nanos(LOADING_NS.get())
}

fn thread_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The object as aya has it when it loads its programs.
fn parse(bytes: &[u8], maps: &[(String, OwnedFd)]) -> Result<(Object, OwnedFd)> {
    let mut object = Object::parse(bytes)?;
    // Without types the kernel takes no program that hands it a function of its own, as those do that walk stacks.
    let features = aya::features().btf().context("the kernel has no type information")?;
    let types = object.fixup_and_sanitize_btf(features)?.context("the object has no type information")?.to_bytes();
    let attributes = TypesLoad {
        btf: types.as_ptr() as u64,
        btf_log_buf: 0,
        btf_size: types.len() as u32,
        btf_log_size: 0,
        btf_log_level: 0,
        btf_log_true_size: 0,
    };
    let types = bpf(bpf_cmd::BPF_BTF_LOAD, &attributes).context("cannot load the types")?;
    let parsed = object.maps.clone();
    let maps = maps.iter().filter_map(|(name, fd)| Some((name.as_str(), fd.as_raw_fd(), parsed.get(name)?)));
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(maps, &sections)?;
    object.relocate_calls(&sections)?;
    object.sanitize_functions(aya::features());
    Ok((object, types))
}

fn load(
    name: &str,
    license: &CStr,
    instructions: &[bpf_insn],
    types: Option<(&Function, &OwnedFd)>,
) -> io::Result<OwnedFd> {
    let func_info = types.map(|(function, _)| function.func_info.func_info_bytes()).unwrap_or_default();
    let mut prog_name = [0; 16];
    for (to, from) in prog_name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bpf(
        bpf_cmd::BPF_PROG_LOAD,
        &ProgramLoad {
            prog_type: bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32,
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: 0,
            prog_name,
            prog_ifindex: 0,
            expected_attach_type: bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32,
            prog_btf_fd: types.map_or(0, |(_, types)| types.as_raw_fd() as u32),
            func_info_rec_size: types.map_or(0, |(function, _)| function.func_info_rec_size as u32),
            func_info: func_info.as_ptr() as u64,
            func_info_cnt: types.map_or(0, |(function, _)| function.func_info.len() as u32),
            line_info_rec_size: 0,
        },
    )
}

/// A descriptor of a map: of those kinds that the programs have. `None` for another one, which no probe uses.
fn descriptor(map: &Map) -> Option<io::Result<OwnedFd>> {
    match map {
        Map::Array(map)
        | Map::ArrayOfMaps(map)
        | Map::HashMap(map)
        | Map::LruHashMap(map)
        | Map::PerCpuArray(map)
        | Map::Queue(map)
        | Map::RingBuf(map) => Some(map.fd().as_fd().try_clone_to_owned()),
        _ => None,
    }
}

/// A command that makes a descriptor. `attributes` begins like the `union bpf_attr` of the command, and the pointers in it
/// are valid.
#[expect(unsafe_code, reason = "the kernel boundary: aya has no such call")]
fn bpf<T>(command: bpf_cmd, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads as many bytes as it is told, and what they point to; it returns a new descriptor, which
    // nobody else has.
    unsafe {
        let result = libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw const *attributes, size_of::<T>());
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(result as i32)) }
    }
}
