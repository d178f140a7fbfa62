#!/usr/bin/python3
"""The smallest application that a BOINC client runs: counts seconds, with the simplest IPC.

Words on its command line: `seconds=N` until it ends, `trickle` to send a message at its start and
to wait for the answer, `touch=PATH` to leave a file somewhere.
"""

import mmap
import re
import sys
import time
from pathlib import Path

CONTROL, STATUS, TRICKLE_UP, TRICKLE_DOWN = 0, 5, 6, 7
BLOCK = 1024


def linked(name: str) -> Path:
    text = Path(name).read_text() if Path(name).exists() else ""
    target = re.search("<soft_link>(.*)</soft_link>", text)
    return Path(target[1]) if target else Path(name)


def receive(memory: mmap.mmap, channel: int) -> str:
    start = channel * BLOCK
    if not memory[start]:
        return ""
    text = bytes(memory[start + 1 : start + BLOCK]).partition(b"\0")[0].decode()
    memory[start] = 0
    return text


def send(memory: mmap.mmap, channel: int, text: str) -> None:
    start = channel * BLOCK
    if not memory[start]:
        memory[start + 1 : start + 2 + len(text)] = text.encode() + b"\0"
        memory[start] = 1


def run(words: dict[str, str], memory: mmap.mmap) -> None:
    total, done, paused, answer = float(words.get("seconds", "5")), 0.0, False, ""
    if "trickle" in words:
        body = "<variety>copilot_runtime</variety>\n<runtime>12.5</runtime>\n"
        Path("trickle_up.xml").write_text(body)
        send(memory, TRICKLE_UP, "<have_new_trickle_up/>")
    for tick in range(1_000_000):
        order = receive(memory, CONTROL)
        if "<quit/>" in order or "<abort/>" in order:
            sys.exit(0)
        paused = (paused or "<suspend/>" in order) and "<resume/>" not in order
        if "have_trickle_down" in receive(memory, TRICKLE_DOWN):
            answer = "".join(path.read_text() for path in Path().glob("trickle_down_*"))
        if not paused:
            done += 0.1
        if not paused and tick % 10 == 0:
            state = f"<current_cpu_time>{done}</current_cpu_time>"
            state += f"<checkpoint_cpu_time>{done}</checkpoint_cpu_time>"
            send(memory, STATUS, f"{state}<fraction_done>{min(done / total, 1)}</fraction_done>")
        if done >= total and ("trickle" not in words or answer):
            break
        time.sleep(0.1)
    state = f"<current_cpu_time>{total}</current_cpu_time>"
    state += f"<checkpoint_cpu_time>{total}</checkpoint_cpu_time><fraction_done>1</fraction_done>"
    while memory[STATUS * BLOCK]:
        time.sleep(0.1)
    send(memory, STATUS, state)
    while memory[STATUS * BLOCK]:
        time.sleep(0.1)
    greeting = linked("greeting").read_text() if Path("greeting").exists() else ""
    linked("receipts").write_text(f"{greeting}{answer}done\n")
    Path("boinc_finish_called").write_text("0\n")


def main() -> None:
    pairs = (word.partition("=") for word in sys.argv[1:])
    words = {name: value for name, _, value in pairs}
    if "touch" in words:
        Path(words["touch"]).touch()
    sys.stderr.write("tiny application starts\n")
    with Path("boinc_mmap_file").open("r+b") as file:
        run(words, mmap.mmap(file.fileno(), 8 * BLOCK))


if __name__ == "__main__":
    main()
