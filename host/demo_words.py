"""The words that the demo model knows, and the ones of a prompt that it does not."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from comfy.sd1_clip import SDTokenizer

from ..guidance.wording import quoted

__all__ = ["DemoTokenizer"]

log = logging.getLogger(__name__)

# What the last token of a word ends with in CLIP's vocabulary.
WORD_END = "</w>"


class DemoTokenizer(SDTokenizer):
    """CLIP's tokenizer, which says in the log, once each, what words mean nothing to the model.

    Args:
        known: tokens of the captions that the model was trained with.
        options: of the host's tokenizer.
    """

    def __init__(self, known: Iterable[int], **options: Any):
        super().__init__(**options)
        self._known = frozenset(known)
        self._named: set[str] = set()

    def tokenize_with_weights(self, text: str, *arguments: Any, **options: Any) -> list:
        """Tokens with their weights, as the host has them."""
        tokens = super().tokenize_with_weights(text, *arguments, **options)
        words = dict.fromkeys(self._unknown(token for part in tokens for token, *_ in part))
        if new := [word for word in words if word not in self._named]:
            self._named.update(new)
            meaning = "it means" if len(new) == 1 else "they mean"
            log.warning(
                "Z-Magic: the demo model was never told %s: %s nothing to it",
                ", ".join(map(quoted, new)),
                meaning,
            )
        return tokens

    def _unknown(self, tokens: Iterable[Any]) -> Iterator[str]:
        """Words with a token that no caption has; punctuation alone is none."""
        word: list[int] = []
        for token in tokens:
            # The others are vectors of an embedding, which mean what they mean.
            if not isinstance(token, int) or token in (self.start_token, self.end_token):
                continue
            word.append(token)
            if self.inv_vocab[token].endswith(WORD_END):
                spelled = self.decode(word).strip()
                if not self._known.issuperset(word) and any(map(str.isalnum, spelled)):
                    yield spelled
                word = []
