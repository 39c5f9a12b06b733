"""Attribution patching: two passes and a gradient guess what hundreds of patches would do.

Nanda 2023, "Attribution Patching: Activation Patching At Industrial Scale"; Syed et al. 2023,
arXiv 2310.10348. The guess is of first order. It is compared with the patches themselves, for what the
attention and the MLP of each layer add to the stream at the positions that matter.
"""

import numpy as np

from transom import Client

CLEAN = "When John and Mary went to the shop, John gave a bag to"
CORRUPT = "When John and Mary went to the shop, Mary gave a bag to"
NAMES = (" Mary", " John")


def main() -> None:
    with Client() as client:
        model = client.model()
        length = model.tokens(CLEAN).count
        places = [length - 5, length - 1]
        for at in ("attn_out_post", "mlp_out_post"):
            guessed = model.attribution_patching(CLEAN, CORRUPT, NAMES, at=at, pos=places)
            patched = model.activation_patching(CLEAN, CORRUPT, NAMES, at=at, pos=places)
            measured = patched.logit_diff - patched.corrupt
            together = np.corrcoef(np.ravel(guessed), np.ravel(measured))[0, 1]
            layer, place = np.unravel_index(np.abs(measured.data).argmax(), measured.shape)
            here, most, guess = places[place], measured.data[layer, place], guessed.data[layer, place]
            print(f"{at}: {measured.data.size} patches, correlation {together:.2f}")
            print(f"  largest: layer {layer}, position {here}: {most:.2f}, guessed {guess:.2f}")


if __name__ == "__main__":
    main()
