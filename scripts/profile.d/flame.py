"""A flame graph of `perf script` output on stdin, as SVG on stdout: time by the stack that used it."""

import html
import re
import sys

WIDTH, ROW, SMALLEST = 1200, 17, 0.4


def stacks(lines):
    """Each sample's frames, outermost first."""
    frames, command = [], ""
    for line in lines:
        if not line.strip():
            if frames:
                yield [command, *reversed(frames)]
            frames = []
        elif not line[0].isspace():
            command = line.split()[0]
        else:
            name = line.strip().split(" ", 1)[-1].rsplit(" (", 1)[0]
            frames.append(re.sub(r"\+0x[0-9a-f]+$", "", name))
    if frames:
        yield [command, *reversed(frames)]


class Node:
    def __init__(self):
        self.count, self.below = 0, {}


def main():
    root, depth = Node(), 0
    for stack in stacks(sys.stdin):
        root.count += 1
        node = root
        depth = max(depth, len(stack))
        for frame in stack:
            node = node.below.setdefault(frame, Node())
            node.count += 1
    if root.count == 0:
        sys.exit("no sample has a stack")
    boxes = []

    def draw(node, left, level):
        for name, below in sorted(node.below.items()):
            width = WIDTH * below.count / root.count
            if width >= SMALLEST:
                top = (depth - level) * ROW
                hue = 10 + sum(name.encode()) % 45
                share = 100 * below.count / root.count
                label = html.escape(name)
                shown = html.escape(name[: int(width / 6.5)]) if width > 30 else ""
                boxes.append(
                    f'<g><title>{label}: {share:.1f} %</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" '
                    f'height="{ROW - 1}" fill="hsl({hue},75%,65%)"/><text x="{left + 3:.1f}" y="{top + 12}">{shown}</text></g>'
                )
                draw(below, left, level + 1)
            left += width

    draw(root, 0, 1)
    height = (depth + 1) * ROW
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(boxes)}</svg>'
    )


main()
