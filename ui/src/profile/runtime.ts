// Which functions belong to a language's runtime or to the C library's start-up rather than to the program. A guess by name
// and module: it changes colours and what "merge runtime frames" merges, never what is counted.

const MODULES = /(?:^|\/)(?:ld-linux[^/]*|ld-musl[^/]*|libc\.so[^/]*|libc-[\d.]+\.so|libpthread[^/]*|libpython[^/]*|libjvm\.so|libnode\.so[^/]*|libruby[^/]*|libcoreclr\.so|libclrjit\.so|libstdc\+\+[^/]*|libgcc_s[^/]*|\[vdso\])$/

const NAMES = new RegExp([
  // Start-up of threads and programs.
  '^(?:_start|_dl_.*|__libc_start.*|__libc_start_call_main|start_thread|clone3?|__clone3?|_init|_fini)$',
  // Rust.
  '^(?:std::(?:rt|panic|panicking|sys|thread)::|core::ops::function::(?:FnOnce|FnMut|Fn)|alloc::alloc::|__rust_)',
  '__rust_begin_short_backtrace',
  // C++.
  '^std::(?:__invoke|thread::_|function<|_Function_handler|__detail::)',
  // Go.
  '^runtime[./]', '^internal/runtime/',
  // Python.
  '^_?Py[A-Z_]', '^(?:cfunction_|method_vectorcall|object_vacall|slot_tp_|pymain_)',
  // Node and V8.
  '^(?:v8::|node::|Builtins_|uv_|uv__)', '^node:internal/',
  // The JVM.
  '^(?:JavaCalls::|JavaThread::|Thread::call_run|thread_native_entry|StubRoutines)', '^(?:Interpreter|call_stub)$',
].join('|'))

/** Is a function of this name, in this module, a runtime's? */
export function isRuntime(name: string, module: string): boolean {
  return MODULES.test(module) || NAMES.test(name)
}
