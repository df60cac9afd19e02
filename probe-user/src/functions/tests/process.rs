//! A running process: ourselves, and our C library.

use super::*;
use crate::target::{Modules, Process};

#[test]
fn our_own_functions_are_found_where_they_run() {
    let mut modules = Modules::default();
    let process = Process::read(std::process::id(), &mut modules);
    let Files { modules, roots } = Files::of_process(&process);
    let finder = Finder::of_modules(modules, roots);
    let spec = "probe::functions::tests::process::our_own_functions_are_found_where_they_run";
    let found = finder.find(&spec.parse().unwrap()).unwrap();
    let address = our_own_functions_are_found_where_they_run as fn() as usize as u64;
    let (module, offset) = process.locate(address).unwrap();
    assert!(std::sync::Arc::ptr_eq(module, &found.places[0].module));
    assert_eq!(found.places[0].file_offset, offset);
}

#[test]
fn the_c_library_has_indirect_functions_and_plain_ones() {
    let mut modules = Modules::default();
    let process = Process::read(std::process::id(), &mut modules);
    let Files { modules, roots } = Files::of_process(&process);
    let finder = Finder::of_modules(modules, roots);
    let Ok(found) = finder.find(&"libc.so.6:malloc".parse().unwrap()) else {
        println!("skipped: this program is not linked to glibc");
        return;
    };
    let malloc = libc::malloc as unsafe extern "C" fn(usize) -> *mut libc::c_void as usize as u64;
    let (_, offset) = process.locate(malloc).unwrap();
    assert!(found.places.iter().any(|place| place.file_offset == offset), "{found:?}");
    let memcpy = finder.find(&"libc.so.6:memcpy".parse().unwrap());
    let refusals = match memcpy {
        Ok(found) => found.refused,
        Err(missing) => match missing.why {
            Why::Refused(refusals) => refusals,
            why => panic!("{why:?}"),
        },
    };
    for refusal in &refusals {
        println!("{refusal}");
        assert!(matches!(&refusal.reason, Reason::Indirect(places) if !places.is_empty()), "{refusal}");
    }
}
