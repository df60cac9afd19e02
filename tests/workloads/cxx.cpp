// C++ names: a member of a template in a namespace, with a function inlined into it.
#include "common.h"

namespace shop {

inline __attribute__((always_inline)) void apply_discount() { BURN_MS(10); }

template <typename Money>
struct Cart {
    __attribute__((noinline)) Money total(Money price) {
        apply_discount();
        sink = sink + 1;
        return price;
    }
};

}  // namespace shop

int main() {
    shop::Cart<long> cart;
    say_ready();
    for (;;) sink = sink + static_cast<uint64_t>(cart.total(7));
}
