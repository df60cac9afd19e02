//! Static tracepoints, made by hand as `<sys/sdt.h>` makes them.

use super::*;

const SOURCE: &str = r#"
#define PROBE(provider, name, semaphore, arguments, value) __asm__ volatile( \
    "990: nop\n.pushsection .note.stapsdt,\"\",\"note\"\n.balign 4\n.4byte 992f-991f, 994f-993f, 3\n" \
    "991: .asciz \"stapsdt\"\n992: .balign 4\n993: .8byte 990b\n.8byte _.stapsdt.base\n.8byte " semaphore "\n" \
    ".asciz \"" provider "\"\n.asciz \"" name "\"\n.asciz \"" arguments "\"\n994: .balign 4\n.popsection\n" \
    ".ifndef _.stapsdt.base\n.pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n" \
    ".weak _.stapsdt.base\n.hidden _.stapsdt.base\n_.stapsdt.base: .space 1\n.size _.stapsdt.base,1\n.popsection\n.endif\n" \
    :: "D"(value))
__attribute__((section(".probes"))) volatile unsigned short shop_sold_semaphore = 0;
__attribute__((noinline)) int sell(int n) { PROBE("shop", "sold", "shop_sold_semaphore", "-4@%%edi 8@$5", n); return n; }
__attribute__((noinline)) int refund(int n) { PROBE("shop", "refunded", "0", "-4@%%edi", n); return n; }
int main(int n, char **v) { return sell(n) + refund(n); }
"#;

#[test]
fn static_tracepoints_are_found_with_their_counters_and_arguments() {
    for options in [&["-O2", "-no-pie"][..], &["-O2", "-fPIE", "-pie"]] {
        let workshop = Workshop::new();
        let Some(made) = workshop.compile("cc", SOURCE, "made", options) else { continue };
        let place = one(&made, "usdt:shop:sold");
        assert_eq!(bytes_at(&place, 1), [0x90], "{options:?}");
        assert_eq!((place.name.as_str(), place.to_string().as_str()), ("sell", "usdt:made:shop:sold"));
        let Kind::Usdt { semaphore, arguments, .. } = &place.kind else { panic!("{place:?}") };
        let symbol = find(&made, "shop_sold_semaphore").unwrap_err();
        let Why::Refused(refusals) = symbol.why else { panic!() };
        let writable = |s: &&crate::target::Segment| {
            !s.executable && (s.address..s.address + s.size).contains(&refusals[0].address)
        };
        let segment = place.module.segments().iter().find(writable).unwrap();
        assert_eq!(*semaphore, Some(refusals[0].address - segment.address + segment.offset));
        let edi = Value::Register(Register { name: "rdi", is_high_byte: false });
        assert_eq!((&arguments[0].value, &arguments[1].value), (&edi, &Value::Constant(5)));
        let place = one(&made, "usdt:made:shop:refunded");
        assert!(matches!(place.kind, Kind::Usdt { semaphore: None, .. }) && place.name == "refund");
        assert_eq!(find(&made, "usdt:shop:*").unwrap().places.len(), 2);
        let hint = |spec| find(&made, spec).unwrap_err().hint();
        assert!(hint("usdt:shop:sould").contains("usdt:shop:sold"), "{}", hint("usdt:shop:sould"));
        assert!(hint("usdt:shp:qqqqqq").contains("usdt:shop:*"), "{}", hint("usdt:shp:qqqqqq"));
    }
}
