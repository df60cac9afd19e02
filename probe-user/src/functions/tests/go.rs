//! Go: functions of stripped programs, and where they return.

use super::*;

const SOURCE: &str = "package main\n\
    import (\"fmt\"; \"os\")\n\
    type Book struct{ n int }\n\
    //go:noinline\n\
    func (b *Book) Price(n int) int { if n > 3 { return b.n }; return n + len(os.Args) }\n\
    //go:noinline\n\
    func evaluate(n int) (int, error) { if n > 100 { return 0, fmt.Errorf(\"%d\", n) }; b := Book{n}; return b.Price(n), nil }\n\
    func main() { fmt.Println(evaluate(len(os.Args))) }\n";

fn build(workshop: &Workshop, made: &str, options: &[&str]) -> Option<PathBuf> {
    workshop.write("made.go", SOURCE);
    workshop.run("go", &[&["build", "-o", made], options, &["made.go"]].concat())?;
    Some(workshop.path(made))
}

#[test]
fn functions_of_stripped_programs_are_found_and_their_returns() {
    let workshop = Workshop::new();
    let mut whole: Option<Returns> = None;
    for (name, options) in [("whole", &[][..]), ("stripped", &["-ldflags=-s -w"])] {
        let Some(made) = build(&workshop, name, options) else { return };
        let place = one(&made, "main.evaluate");
        assert!(place.is_go, "{place:?}");
        let returns = returns(&made, &place);
        assert!(!returns.offsets.is_empty());
        for &offset in &returns.offsets {
            let at = Place { file_offset: offset, ..place.clone() };
            assert_eq!(bytes_at(&at, 1), [0xc3]);
            assert!((place.file_offset..place.file_offset + place.size).contains(&offset));
        }
        // Relative to the function they are the same, whether the table of symbols is there or not.
        let relative = |r: &Returns| r.offsets.iter().map(|at| at - place.file_offset).collect::<Vec<_>>();
        if let Some(whole) = &whole {
            assert_eq!(whole.offsets, relative(&returns));
        }
        whole = Some(Returns { offsets: relative(&returns), ..returns });
        assert_eq!(one(&made, "main.(*Book).Price").name, "main.(*Book).Price");
        assert!(find(&made, "main.*").unwrap().places.len() >= 3);
        let missing = find(&made, "main.evalute").unwrap_err();
        assert!(missing.hint().contains("main.evaluate"), "{}", missing.hint());
    }
}

#[test]
fn a_program_that_may_be_loaded_anywhere_is_read_as_well() {
    let workshop = Workshop::new();
    let Some(whole) = build(&workshop, "whole", &["-buildmode=pie"]) else { return };
    let Some(stripped) = build(&workshop, "stripped", &["-buildmode=pie", "-ldflags=-s -w"]) else { return };
    let offsets = |made: &Path| {
        let place = one(made, "main.evaluate");
        let returns = returns(made, &place).offsets;
        returns.iter().map(|at| at - place.file_offset).collect::<Vec<_>>()
    };
    assert_eq!(offsets(&whole), offsets(&stripped));
}

#[test]
fn a_c_program_is_not_taken_for_go() {
    let workshop = Workshop::new();
    let source = "__attribute__((noinline)) int f(int n) { if (n) return 1; __asm__(\"\"); return 2; } int main(void) { return f(0); }";
    let Some(made) = workshop.compile("cc", source, "made", &["-O0"]) else { return };
    let place = one(&made, "f");
    assert!(!place.is_go);
    assert_eq!(returns(&made, &place).offsets.len(), 1);
}
