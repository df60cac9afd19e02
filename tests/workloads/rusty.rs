//! Rust names: a generic function, with a closure's worth of work inlined into it.

use std::hint::black_box;
use std::io::Write;

mod pricing {
    use std::hint::black_box;

    /// A way of pricing.
    pub trait Rule {
        fn apply(&self, price: u64) -> u64;
    }

    pub struct Discount(pub u64);

    impl Rule for Discount {
        #[inline(always)]
        fn apply(&self, price: u64) -> u64 {
            let mut total = price;
            for round in 0..1_000_000 {
                total = black_box(total.wrapping_mul(31).wrapping_add(round ^ self.0));
            }
            total
        }
    }

    #[inline(never)]
    pub fn evaluate<R: Rule>(rule: &R, price: u64) -> u64 {
        black_box(rule.apply(price))
    }
}

fn main() {
    println!("ready");
    std::io::stdout().flush().expect("the test reads it");
    let rule = pricing::Discount(7);
    let mut price = 1;
    loop {
        price = black_box(pricing::evaluate(&rule, price));
    }
}
