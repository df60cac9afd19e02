/* A part of a library: a hundred functions that save registers, call and return early, so that their unwind information
 * is of the usual length. PART makes their names differ. */
extern volatile unsigned long sink;

/* Nothing is known of it, so that its callers save what they need. */
static __attribute__((noipa)) void leaf(unsigned long a, unsigned long b) { sink += a ^ b; }

#define PASTE(part, number) f##part##_##number
#define NAME(part, number) PASTE(part, number)
#define FUNCTION(number)                                                                                  \
    unsigned long NAME(PART, number)(unsigned long a, unsigned long b, unsigned long c) {                 \
        unsigned long d = a * (1##number + PART);                                                         \
        if (b & 1) {                                                                                      \
            leaf(a, d);                                                                                   \
            leaf(c, d + b);                                                                               \
        }                                                                                                 \
        if (c & 2) return d;                                                                              \
        leaf(b, c);                                                                                       \
        return a + d * c + b;                                                                             \
    }
#define TEN(n)                                                                                            \
    FUNCTION(n##0) FUNCTION(n##1) FUNCTION(n##2) FUNCTION(n##3) FUNCTION(n##4)                            \
    FUNCTION(n##5) FUNCTION(n##6) FUNCTION(n##7) FUNCTION(n##8) FUNCTION(n##9)

TEN(0) TEN(1) TEN(2) TEN(3) TEN(4) TEN(5) TEN(6) TEN(7) TEN(8) TEN(9)
