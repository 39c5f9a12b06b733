"""Indirect objects: who gets the bag? Patching shows where the answer stands in each layer.

Wang et al. 2022, "Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2 small",
arXiv 2211.00593. Two prompts differ in one name. Early on, that name's position decides; then heads move what
it says to the last position. With a file name as argument, the heat map is written there.
"""

import sys

from transom import Client

CLEAN = "When John and Mary went to the shop, John gave a bag to"
CORRUPT = "When John and Mary went to the shop, Mary gave a bag to"
NAMES = (" Mary", " John")


def main() -> None:
    with Client() as client:
        model = client.model()
        tokens = model.tokens(CLEAN).token_strs or ()
        second, end = len(tokens) - 5, len(tokens) - 1
        found = model.activation_patching(CLEAN, CORRUPT, NAMES, pos=[second, end])
        print(f"logit of{NAMES[0]} minus{NAMES[1]}: clean {found.clean:.2f}, corrupt {found.corrupt:.2f}")
        name, last = found.restored.at(pos=0), found.restored.at(pos=1)
        for layer in range(1, name.shape[0], 4):
            here, there = float(name.at(layer=layer)), float(last.at(layer=layer))
            print(f"layer {layer:2}: {tokens[second]!r} restores {here:5.2f}, {tokens[end]!r} {there:5.2f}")
        crossing = int((last.data > name.data).argmax())
        print(f"From layer {crossing} on, the last position knows more than the name's.")
        direct = model.direct_logit_attribution(CLEAN, NAMES)
        most = int(direct.data.argmax())
        part, total = float(direct.at(component=most)), float(direct.sum())
        print(f"{direct.labels['component'][most]} alone adds {part:.2f} to the {total:.2f}.")
        if len(sys.argv) > 1:
            found.plot("Restored logit difference").save(sys.argv[1])


if __name__ == "__main__":
    main()
