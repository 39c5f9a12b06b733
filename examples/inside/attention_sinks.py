"""Attention sinks: most heads leave most of their attention on the first token, whatever it is.

Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks", arXiv 2309.17453.
"""

from transom import Client

TEXT = (
    " old man walked to the market, bought some bread and a little cheese, and sat down by the river to eat."
)
FIRST = ("The", "One", "An")
SKIPPED = 4
"""Positions at the beginning, where there is little else to look at."""


def main() -> None:
    with Client() as client:
        model = client.model()
        for word in FIRST:
            attention = model.attention(word + TEXT)
            queries = slice(SKIPPED, None)
            sink = attention.at(query=queries, key=0).mean("query")
            # An ordinary token: the one after it.
            other = attention.at(query=queries, key=1).mean("query")
            print(
                f"{word!r:6} gets {float(sink.mean()):.2f} of all attention, the token after it "
                f"{float(other.mean()):.2f}; {float((sink.data > 0.5).mean()):.0%} of heads look at it mostly"
            )
        layers = sink.mean("head")
        print(f"Least in layer {int(layers.data.argmin())}, most in layer {int(layers.data.argmax())}.")


if __name__ == "__main__":
    main()
