# An interpreter at work: native code of many kinds, compiled as distributions do.
import json


def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


print("ready", flush=True)
while True:
    fibonacci(18)
    json.loads(json.dumps(list(range(1000))))
    sorted(str(i) for i in range(2000))
