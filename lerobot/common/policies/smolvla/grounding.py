"""What SmolVLA's vision-language model can be asked without an action: where in a picture is what a sentence names?

Stands in, for a model that begins with random weights, for what published ones learned from pictures with captions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.common.policies.common.flow_matching import attention_bias
from lerobot.common.policies.common.llama import prefix_layer, rope_table
from lerobot.common.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.common.policies.smolvla.vlm_source import VLMSource
from lerobot.common.processor.tokenizer import load_tokenizer

MARK = "1"  # the token that a picture token of a named thing becomes
PICTURE_SCALE, LAYER_SCALE = 0.1, 3.5


class Grounding:
    """Scores of the picture tokens of a policy for a word, or for a sentence. Its language head is trained, too."""

    def __init__(self, policy: SmolVLAPolicy):
        self.model, self.vlm = policy.model, policy.model.vlm_with_expert.vlm
        self.tokenizer = load_tokenizer(str(VLMSource(policy.config.vlm_model_name).tokenizer_folder()))
        self.mark = self.tokenizer.convert_tokens_to_ids(MARK)
        self.layers = self.vlm.model.text_model.layers[:-1]  # of the last one only keys and values are ever used
        self.log_scale = nn.Parameter(torch.tensor(5.0).log())
        self.vlm.requires_grad_(True)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of a picture's tokens."""
        config = self.model.vlm_with_expert.vlm_config
        side = config.vision.patch_size * config.scale_factor
        height, width = self.model.config.image_size
        return height // side, width // side

    def split_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """(vision tower, everything else) of the vision-language model."""
        vision = list(self.vlm.model.vision_model.parameters())
        held = {id(p) for p in vision}
        return vision, [p for p in self.vlm.parameters() if id(p) not in held]

    def towers(self) -> list[nn.Parameter]:
        """What `match` trains: vision tower, connector, word embeddings, and the scale of the scores."""
        vlm = self.vlm.model
        parts = [*vlm.vision_model.parameters(), *vlm.connector.parameters(), vlm.text_model.embed_tokens.weight]
        return [*parts, self.log_scale]

    def balance(self) -> None:
        """Bring random weights to scales at which words and picture tokens can change each other.

        As they are initialized, picture tokens are ten times as long as word tokens, and what a layer adds is so short
        that it takes hundreds of steps until a sentence leaves a trace in them.
        """
        with torch.no_grad():
            self.vlm.model.connector.modality_projection.proj.weight.mul_(PICTURE_SCALE)
            for linear in (m for layer in self.vlm.model.text_model.layers for m in layer.modules()):
                if isinstance(linear, nn.Linear):
                    linear.weight.mul_(LAYER_SCALE)

    def match(self, pictures: list[Tensor], which: Tensor, words: list[str]) -> list[Tensor]:
        """Likeness of picture tokens and words, per camera `(Q, tokens)`: scaled cosines, no layer in between.

        pictures: per camera `(N, 3, H, W)` in [-1, 1]; which `(Q,)`: the row that question q, about words[q], is asked
        of.
        """
        table = self.vlm.model.text_model.embed_tokens.weight
        ids = {word: self.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in sorted(set(words))}
        directions = torch.stack([F.normalize(table[ids[word]].mean(0), dim=0) for word in ids])
        asked = torch.tensor([list(ids).index(word) for word in words])
        scores = []
        for tokens in self.model.embed_images(pictures):
            cosines = F.normalize(tokens.float(), dim=-1) @ directions.T
            scores.append((cosines * self.log_scale.exp())[which, :, asked])
        return scores

    def named(self, pictures: list[Tensor], which: Tensor, sentences: list[str]) -> list[Tensor]:
        """How much each picture token says that the sentence means it, per camera `(Q, tokens)`; through the layers.

        Arguments as for `match`. Pictures and sentence attend each other, as in SmolVLA's prefix.
        """
        text = self.vlm.model.text_model
        given = self.tokenizer([f"{sentence}\n" for sentence in sentences], return_tensors="pt", padding=True)
        words = text.embed_tokens(given["input_ids"]) * text.embed_tokens.embedding_dim**0.5
        per_camera = [tokens[which] for tokens in self.model.embed_images(pictures)]
        counts = [tokens.shape[1] for tokens in per_camera]
        hidden = torch.cat([*per_camera, words], 1)
        real = F.pad(given["attention_mask"].bool(), (sum(counts), 0), value=True)
        bias = attention_bias(real[:, None, :] & real[:, :, None])
        table = rope_table(real.cumsum(1) - 1, self.model.vlm_with_expert.vlm_config.text.head_dim)
        for layer in self.layers:
            _, _, hidden = prefix_layer(layer, hidden, table, bias, False)
        scores = text.norm(hidden[:, : sum(counts)]).float() @ self.vlm.lm_head.weight[self.mark].float()
        return list(scores.split(counts, 1))


def pointing_loss(scores: list[Tensor], places: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(mean cross entropy, which answers are right): which token shows the place?

    scores: per camera `(Q, rows * cols)`; places int `(Q, cameras, 2)`, hundredths from the left and top; grid:
    (rows, cols). What is on an edge is out of sight and left out. Right answers: bool, all cameras together.
    """
    rows, cols = grid
    total, right = scores[0].new_zeros(()), []
    for camera, score in enumerate(scores):
        left, top = places[:, camera].unbind(-1)
        seen = (left > 0) & (left < 99) & (top > 0) & (top < 99)
        token = (top * rows // 100 * cols + left * cols // 100)[seen]
        total = total + F.cross_entropy(score[seen], token, reduction="sum")
        right.append(score[seen].argmax(-1) == token)
    right = torch.cat(right)
    return total / max(1, len(right)), right
