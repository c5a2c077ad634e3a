"""See `run`."""

import argparse
import sys

from . import parts, results
from .servers import REPOSITORY, WORK
from .tools import all_peers, first_line


def main():
    arguments = argparse.ArgumentParser(prog="benches/peers/run")
    arguments.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts.PARTS))
    arguments.add_argument("--quick", action="store_true", help="small data; the results go below target/")
    arguments.add_argument("--rounds", type=int, help="how often each command is measured")
    given = arguments.parse_args()
    unknown = [name for name in given.parts if name not in parts.PARTS]
    if unknown or (given.rounds is not None and given.rounds < 1):
        arguments.error(f"the parts are {', '.join(parts.PARTS)}; there is at least one round")
    scale = parts.QUICK if given.quick else parts.Scale(rounds=5)
    scale.rounds = given.rounds or scale.rounds
    whole = not given.quick and not given.parts
    path = REPOSITORY / "benches" / "RESULTS.md" if whole else WORK / "RESULTS.md"
    versions = sorted({(peer.name, peer.version) for peer in all_peers()})
    versions += [("rclone", first_line("rclone", "--version")), ("rsync", first_line("rsync", "--version")),
                 ("garage", first_line("garage", "--version"))]  # fmt: skip
    sections = []
    for name, part in parts.PARTS.items():
        if given.parts and name not in given.parts:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        sections.append(part(scale))
        # What was found so far is there whatever happens next.
        results.write(path, sections, scale.rounds, given.quick, versions)
    print(f"written: {path}", file=sys.stderr)


main()
