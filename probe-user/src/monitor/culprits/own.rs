//! Whose code is a frame? The application explains something; what every program stands on (the kernel, the run-time libraries,
//! the standard library of a language, allocators, whatever starts threads) does not: it gives way to the nearest frame of the
//! application above it. Code of the standard library is often inlined, or linked in, so that modules alone do not tell: names
//! and source files do.

use super::{Chain, Function};
use crate::symbolize::{Frame, Kind};
use std::collections::HashSet;

/// Whose code it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Application,
    /// Of an interpreter: named where there is nothing of the application.
    Interpreter,
    Runtime,
}

/// Shared libraries that every program stands on, by the name up to the first `.` or `-`.
const LIBRARIES: [&str; 27] = [
    "libc",
    "libm",
    "libpthread",
    "librt",
    "libdl",
    "libresolv",
    "libstdc++",
    "libc++",
    "libc++abi",
    "libgcc_s",
    "libunwind",
    "ld",
    "libasan",
    "libtsan",
    "libgomp",
    "libomp",
    "libjemalloc",
    "libtcmalloc",
    "libtcmalloc_minimal",
    "libmimalloc",
    "libgo",
    "libglib",
    "libgthread",
    "libevent",
    "libev",
    "libuv",
    "libtbb",
];

/// Interpreters, as libraries or programs, by the start of their names.
const INTERPRETERS: [&str; 10] =
    ["python", "libpython", "node", "libnode", "ruby", "libruby", "perl", "libperl", "php", "libjvm"];

/// Source files of standard libraries.
const FILES: [&str; 12] = [
    "/rustc/",
    "/library/core/src/",
    "/library/alloc/src/",
    "/library/std/src/",
    "/include/c++/",
    "/c++/v1/",
    "/bits/gthr-default.h",
    "/sysdeps/",
    "/nptl/",
    "/usr/local/go/src/",
    "/usr/lib/go/src/",
    "/usr/lib/go-",
];

/// Namespaces, packages and reserved prefixes of standard libraries and of what runs tasks.
const NAMES: [&str; 43] = [
    "std::",
    "<std::",
    "core::",
    "<core::",
    "alloc::",
    "<alloc::",
    "__gnu_cxx::",
    "__cxxabiv1::",
    "boost::thread",
    "tokio::",
    "<tokio::",
    "rayon_core::",
    "<rayon_core::",
    "crossbeam_",
    "parking_lot",
    "lock_api::",
    "mio::",
    "hashbrown::",
    "__gthread_",
    "__cxa_",
    "__rust_",
    "__rustc",
    "__libc_",
    "__pthread_",
    "pthread_",
    "__lll_",
    "__futex_",
    "futex_",
    "___pthread_",
    "__GI_",
    "_IO_",
    "__nptl_",
    "_dl_",
    "runtime.",
    "runtime/",
    "sync.",
    "sync/",
    "syscall.",
    "internal/",
    "reflect.",
    "time.Sleep",
    "tcmalloc::",
    "mi_heap_",
];

/// Functions of allocators and of C libraries, where these are linked in: there they have no source file.
const FUNCTIONS: [&str; 73] = [
    "malloc",
    "free",
    "calloc",
    "realloc",
    "reallocarray",
    "aligned_alloc",
    "posix_memalign",
    "memalign",
    "_int_malloc",
    "_int_free",
    "_int_realloc",
    "_int_memalign",
    "malloc_consolidate",
    "sysmalloc",
    "je_malloc",
    "je_calloc",
    "je_realloc",
    "je_free",
    "mi_malloc",
    "tc_malloc",
    "tc_new",
    "operator new",
    "operator new[]",
    "operator delete",
    "operator delete[]",
    "PyMem_Malloc",
    "PyObject_Malloc",
    "memcpy",
    "memmove",
    "memset",
    "usleep",
    "nanosleep",
    "clock_nanosleep",
    "sem_wait",
    "epoll_wait",
    "__clone_internal",
    "__clone3_internal",
    "create_thread",
    "allocate_stack",
    "open",
    "open64",
    "__open64",
    "__open",
    "openat",
    "openat64",
    "__openat64",
    "creat",
    "fopen",
    "fopen64",
    "__fopen_internal",
    "__new_fopen",
    "opendir",
    "__opendir",
    "socket",
    "__socket",
    "socketpair",
    "accept",
    "accept4",
    "__accept",
    "__accept4",
    "pipe",
    "pipe2",
    "__pipe",
    "__pipe2",
    "dup",
    "dup2",
    "__dup2",
    "eventfd",
    "epoll_create",
    "epoll_create1",
    "timerfd_create",
    "inotify_init1",
    "memfd_create",
];

/// What starts threads and programs: it explains nothing, whoever it belongs to.
const STARTERS: [&str; 22] = [
    "_start",
    "start_thread",
    "clone",
    "clone3",
    "__clone",
    "__clone3",
    "thread_start",
    "pythread_wrapper",
    "thread_run",
    "t_bootstrap",
    "execute_native_thread_routine",
    "g_thread_proxy",
    "goexit",
    "runtime.goexit",
    "lang_start",
    "rust_begin_short_backtrace",
    "thread_native_entry",
    "ThreadJavaMain",
    "JavaThread::run",
    "uv__thread_start",
    "native_thread_create",
    "invoke_main",
];

/// The application's functions in a stack with their places, innermost first, each once; where there are none, those of the
/// interpreter; else the leaf.
pub(super) fn charged_chain(frames: &[Frame<'_>]) -> Chain {
    let of = |owner: Owner| {
        let mut seen = HashSet::new();
        let own = frames.iter().rev().filter(|frame| owner_of(frame) == owner).map(charge);
        own.filter(|(function, _)| seen.insert(function.clone())).collect::<Chain>()
    };
    let mut chain = of(Owner::Application);
    if chain.is_empty() {
        chain = of(Owner::Interpreter);
    }
    if chain.is_empty() {
        chain.extend(frames.last().map(charge));
    }
    chain
}

/// A frame as it is charged: its function, and where that is.
pub(super) fn charge(frame: &Frame<'_>) -> (Function, super::Place) {
    let function = Function { function: frame.function.to_string(), module: frame.module.to_owned() };
    (function, (frame.file.to_owned(), frame.line))
}

/// Is it code of the application?
pub(super) fn is_application(frame: &Frame<'_>) -> bool {
    owner_of(frame) == Owner::Application
}

/// Is it the first of a thread or a program?
pub(super) fn is_starter(function: &str) -> bool {
    let name = function.split(['(', '<']).next().unwrap_or_default().trim_start_matches('_');
    STARTERS.iter().any(|starter| name == starter.trim_start_matches('_'))
        || function.contains("__rust_begin_short_backtrace")
        || function.contains("::_M_run(")
        || function.starts_with("std::thread::_")
}

fn owner_of(frame: &Frame<'_>) -> Owner {
    let function = &*frame.function;
    if frame.kind == Kind::Kernel || frame.module.starts_with('[') || is_starter(function) {
        return Owner::Runtime;
    }
    let module = frame.module.rsplit('/').next().unwrap_or_default();
    let stem = module.split(['.', '-']).next().unwrap_or_default();
    if module.contains(".so") && LIBRARIES.contains(&stem) {
        return Owner::Runtime;
    }
    // Before its parameters, of which the types may be anybody's.
    let name = function.split('(').next().unwrap_or_default();
    let is_library = FILES.iter().any(|part| frame.file.contains(part))
        || NAMES.iter().any(|start| returned(function).starts_with(start))
        // A closure without the name of the function that it is in tells nothing.
        || name == "operator" && function.starts_with("operator()")
        || frame.file.is_empty() && FUNCTIONS.contains(&name);
    match () {
        () if is_library => Owner::Runtime,
        () if INTERPRETERS.iter().any(|start| is_interpreter(module, start)) => Owner::Interpreter,
        () => Owner::Application,
    }
}

/// `python3.12`, `libpython3.12.so.1.0`, `node`: the name, and a version at most. What only begins like it is no interpreter.
fn is_interpreter(module: &str, name: &str) -> bool {
    module
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| c == '.' || c == '-' || c.is_ascii_digit()))
}

/// A demangled name without what it returns, which stands before the names of templates: `void std::__sort<…>(…)`.
fn returned(function: &str) -> &str {
    let mut depth = 0_u32;
    for (at, c) in function.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            // Names with spaces of their own (`(anonymous namespace)`, `operator new`) end the search.
            '(' => break,
            ' ' if depth == 0 => {
                let rest = &function[at + 1..];
                let is_template = rest.split('(').next().is_some_and(|name| name.contains('<'));
                return if is_template && !function[..at].ends_with("operator") { rest } else { function };
            }
            _ => {}
        }
    }
    function
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame<'a>(function: &'a str, file: &'a str, module: &'a str, inlined: bool) -> Frame<'a> {
        Frame { location: 0, kind: Kind::User, function: function.into(), file, line: 1, module, inlined }
    }

    #[test]
    fn the_application_is_told_from_what_it_stands_on() {
        let app = "/srv/relay";
        let gthr = "/usr/include/x86_64-linux-gnu/c++/12/bits/gthr-default.h";
        for (function, file, module, inlined, expected) in [
            ("transfer(Account&, Account&)", "bank.cpp", app, false, Owner::Application),
            ("__gthread_mutex_lock", gthr, app, true, Owner::Runtime),
            ("lock", "/usr/include/c++/12/bits/std_mutex.h", app, true, Owner::Runtime),
            ("lock", "src/door.c", app, false, Owner::Application),
            ("operator()", "src/relay.cpp", app, true, Owner::Runtime),
            (
                "void std::__invoke_impl<void, void (*)()>(std::__invoke_other, void (*&&)())",
                "",
                app,
                false,
                Owner::Runtime,
            ),
            ("price(std::vector<int> const&)", "", app, false, Owner::Application),
            (
                "std::thread::_State_impl<std::thread::_Invoker<std::tuple<void (*)()> > >::_M_run()",
                "",
                app,
                false,
                Owner::Runtime,
            ),
            ("malloc", "", app, false, Owner::Runtime),
            ("__clone_internal", "", app, false, Owner::Runtime),
            ("open", "src/door.c", app, false, Owner::Application),
            ("pythread_wrapper", "", "/usr/bin/python3.12", false, Owner::Runtime),
            ("_PyEval_EvalFrameDefault", "", "/usr/bin/python3.12", false, Owner::Interpreter),
            ("price", "", "/srv/venv/price.cpython-312-x86_64-linux-gnu.so", false, Owner::Application),
            ("work", "", "/srv/pythonic", false, Owner::Application),
            ("inflate", "", "/usr/lib/libz.so.1", false, Owner::Application),
            ("std::sys::backtrace::__rust_begin_short_backtrace::<app::run, ()>", "", app, false, Owner::Runtime),
            ("<app::Cart as core::fmt::Debug>::fmt", "", app, false, Owner::Application),
            ("main.(*Server).handle", "/srv/main.go", app, false, Owner::Application),
            ("runtime.mallocgc", "/usr/local/go/src/runtime/malloc.go", app, false, Owner::Runtime),
            ("runtime.goexit.abi0", "", app, false, Owner::Runtime),
            ("__clone3", "", "/usr/lib/libc.so.6", false, Owner::Runtime),
        ] {
            assert_eq!(owner_of(&frame(function, file, module, inlined)), expected, "{function} in {file} of {module}");
        }
    }

    #[test]
    fn where_only_an_interpreter_is_seen_it_is_named_by_what_it_does() {
        let python = "/usr/bin/python3.12";
        let frames =
            ["pythread_wrapper", "_PyEval_EvalFrameDefault", "long_mul"].map(|name| frame(name, "", python, false));
        let chain: Vec<String> = charged_chain(&frames).into_iter().map(|(function, _)| function.function).collect();
        assert_eq!(chain, ["long_mul", "_PyEval_EvalFrameDefault"]);
    }
}
