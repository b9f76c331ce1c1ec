"""SmolVLA a second time, slowly: one sequence, explicit masks and loops, double precision, from a weights file alone.

It shares no code with the package. Pictures of absent cameras and padding are really computed here, so comparing
with it also shows that leaving them out changes nothing.
"""

import math

import torch
import torch.nn.functional as F

FLIPPED, GRIPPERS = [1, 2, 8, 9], [6, 13]


class Reference:
    """Loss and actions of a policy's configuration, its vision-language model's configuration and its weights."""

    def __init__(self, config, vlm: dict, weights: dict, markers=None):
        self.config, self.vision, self.text, self.markers = config, vlm["vision_config"], vlm["text_config"], markers
        self.shuffle = vlm["scale_factor"]
        self.w = {k.removeprefix("model."): v.detach().double().requires_grad_() for k, v in weights.items()}
        kept = self.text["num_hidden_layers"]
        self.depth = min(config.num_vlm_layers, kept) if config.num_vlm_layers > 0 else kept
        self.ratio = self.depth // config.num_expert_layers if config.num_expert_layers > 0 else 1
        self.heads, self.kv_heads = self.text["num_attention_heads"], self.text["num_key_value_heads"]
        self.head_dim = self.text["head_dim"]

    # --- small parts

    def linear(self, name: str, x):
        y = x @ self.w[f"{name}.weight"].T
        return y + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else y

    def rms(self, name: str, x):
        eps = self.text.get("rms_norm_eps", 1e-5)
        return self.w[f"{name}.weight"] * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)

    def layer_norm(self, name: str, x):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + self.vision.get("layer_norm_eps", 1e-6))
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def rope(self, x, positions):
        """x `(T, heads, d)`, positions `(T,)`."""
        d = self.head_dim
        k = torch.arange(d // 2, dtype=torch.float64)
        angle = positions[:, None].double() / 10000 ** (2 * k / d)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        a, b = x[..., : d // 2], x[..., d // 2 :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def attend(self, q, k, v, mask):
        """q `(Q, heads, d)`, k and v `(K, kv_heads, d)`, mask `(Q, K)` -> `(Q, heads * d)`."""
        out = []
        for head in range(self.heads):
            group = head // (self.heads // self.kv_heads)
            scores = q[:, head] @ k[:, group].T / math.sqrt(self.head_dim)
            scores = scores.masked_fill(~mask, torch.finfo(torch.float32).min)
            out.append(scores.softmax(-1) @ v[:, group])
        return torch.cat(out, -1)

    # --- pictures

    def prepare_picture(self, image):
        image = image.double()
        if self.config.resize_imgs_with_padding is not None:
            width, height = self.config.resize_imgs_with_padding
            h, w = image.shape[-2:]
            ratio = max(w / width, h / height)
            h, w = int(h / ratio), int(w / ratio)
            image = F.interpolate(image[None], (h, w), mode="bilinear", align_corners=False)[0]
            canvas = torch.zeros(3, height, width, dtype=torch.float64)
            canvas[:, height - h :, width - w :] = image
            image = canvas
        return image * 2 - 1

    def embed_picture(self, image):
        """`(3, H, W)` -> `(N, D)`, scaled."""
        name, patch = "vlm_with_expert.vlm.model.vision_model", self.vision["patch_size"]
        rows, cols = image.shape[1] // patch, image.shape[2] // patch
        kernel = self.w[f"{name}.embeddings.patch_embedding.weight"].flatten(1)
        side = self.vision["image_size"] // patch
        x = []
        for r in range(rows):
            for c in range(cols):
                square = image[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].flatten()
                bucket = [sum(k * n <= i * side for k in range(1, side)) for i, n in ((r, rows), (c, cols))]
                place = self.w[f"{name}.embeddings.position_embedding.weight"][side * bucket[0] + bucket[1]]
                x.append(kernel @ square + self.w[f"{name}.embeddings.patch_embedding.bias"] + place)
        x = torch.stack(x)
        for i in range(self.vision["num_hidden_layers"]):
            x = self.vision_layer(f"{name}.encoder.layers.{i}", x)
        x = self.layer_norm(f"{name}.post_layernorm", x).view(rows, cols, -1)
        r, tokens = self.shuffle, []
        for y in range(rows // r):
            for c in range(cols // r):
                tokens.append(torch.cat([x[y * r + dy, c * r + dx] for dy in range(r) for dx in range(r)]))
        tokens = self.linear("vlm_with_expert.vlm.model.connector.modality_projection.proj", torch.stack(tokens))
        return tokens * math.sqrt(tokens.shape[-1])

    def vision_layer(self, name, x):
        y, heads = self.layer_norm(f"{name}.layer_norm1", x), self.vision["num_attention_heads"]
        q, k, v = (self.linear(f"{name}.self_attn.{n}_proj", y).unflatten(-1, (heads, -1)) for n in "qkv")
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
        x = x + self.linear(
            f"{name}.self_attn.out_proj", torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)
        )
        y = self.linear(f"{name}.mlp.fc1", self.layer_norm(f"{name}.layer_norm2", x))
        y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        return x + self.linear(f"{name}.mlp.fc2", y)

    # --- sequences of one sample

    def prefix(self, batch, b):
        """Embeddings `(P, D)`, validity `(P,)` and block starts `(P,)`."""
        table = self.w["vlm_with_expert.vlm.model.text_model.embed_tokens.weight"]
        parts = []  # (embeddings, valid, block start)
        names = list(self.config.image_features)
        present = [n for n in names if n in batch]
        absent = [n for n in names if n not in batch][: self.config.empty_cameras]
        for name in present + absent:
            source = batch[name if name in batch else present[-1]][b]
            image = self.prepare_picture(source[-1] if source.ndim == 4 else source)
            image = image if name in batch else torch.full_like(image, -1)
            mask = batch.get(f"{name}_padding_mask")
            valid = name in batch and (mask is None or bool(mask[b]))
            if self.markers:
                parts.append((table[list(self.markers)], True, 0))
            parts.append((self.embed_picture(image), valid, 0))
            if self.markers:
                parts.append((table[[self.markers[0]]], True, 0))
        tokens = batch["observation.language.tokens"][b]
        for token, valid in zip(tokens, batch["observation.language.attention_mask"][b], strict=True):
            parts.append((table[token][None] * math.sqrt(table.shape[1]), bool(valid), 0))
        state = batch["observation.state"][b]
        state = (state[-1] if state.ndim > 1 else state).double()
        if self.config.adapt_to_pi_aloha:
            state = aloha(state, _to_angular)
        state = F.pad(state, (0, self.config.max_state_dim - len(state)))
        parts.append((self.linear("state_proj", state[None]), True, 1))
        missing = self.config.prefix_length - sum(len(p[0]) for p in parts)
        if missing > 0:
            parts.append((torch.zeros(missing, table.shape[1], dtype=torch.float64), False, 0))
        counts = torch.tensor([len(p[0]) for p in parts])
        valid, starts = torch.tensor([p[1] for p in parts]), torch.tensor([p[2] for p in parts])
        return (
            torch.cat([p[0] for p in parts]),
            valid.repeat_interleave(counts),
            starts.repeat_interleave(counts),
        )

    def suffix(self, x_t, time):
        """Action tokens `(C, E)` of noisy actions at a time."""
        action = self.linear("action_in_proj", x_t)
        half = action.shape[1] // 2
        low, high = self.config.min_period, self.config.max_period
        period = [low * (high / low) ** (k / (half - 1)) for k in range(half)]
        angle = 2 * math.pi * time.double() / torch.tensor(period, dtype=torch.float64)
        both = torch.cat([action, torch.cat([angle.sin(), angle.cos()]).expand(len(action), -1)], 1)
        return self.linear("action_time_mlp_out", F.silu(self.linear("action_time_mlp_in", both)))

    # --- both streams

    def is_cross(self, layer):
        n = self.config.self_attn_every_n_layers
        return "cross" in self.config.attention_mode and (n <= 0 or layer % n != 0)

    def project(self, name, x):
        y = self.rms(f"{name}.input_layernorm", x)
        return (self.linear(f"{name}.self_attn.{n}_proj", y).unflatten(-1, (-1, self.head_dim)) for n in "qkv")

    def finish(self, name, x, attended):
        x = x + self.linear(f"{name}.self_attn.o_proj", attended)
        y = self.rms(f"{name}.post_attention_layernorm", x)
        gated = F.silu(self.linear(f"{name}.mlp.gate_proj", y)) * self.linear(f"{name}.mlp.up_proj", y)
        return x + self.linear(f"{name}.mlp.down_proj", gated)

    def velocity(self, prefix, valid, starts, x_t, time):
        """`(C, max_action_dim)`, the whole sequence of prefix and action tokens at once."""
        actions = self.suffix(x_t, time)
        p, count = len(prefix), len(prefix) + len(actions)
        valid = torch.cat([valid, torch.ones(len(actions), dtype=torch.bool)])
        block = torch.cat([starts, torch.ones(len(actions), dtype=torch.long)]).cumsum(0)
        mask = (block[None] <= block[:, None]) & valid[None] & valid[:, None]
        positions = valid.cumsum(0) - 1
        for i in range(self.depth):
            text = f"vlm_with_expert.vlm.model.text_model.layers.{i}"
            expert = f"vlm_with_expert.lm_expert.layers.{i // self.ratio}" if i % self.ratio == 0 else None
            q, k, v = self.project(text, prefix)
            q, k = self.rope(q, positions[:p]), self.rope(k, positions[:p])
            if expert is None:
                prefix = self.finish(text, prefix, self.attend(q, k, v, mask[:p, :p]))
            elif self.is_cross(i):
                own = self.rms(f"{expert}.input_layernorm", actions)
                own = self.linear(f"{expert}.self_attn.q_proj", own).unflatten(-1, (-1, self.head_dim))
                own = self.rope(own, torch.arange(count - p))
                keys, values = (
                    self.linear(f"{expert}.self_attn.{n}_proj", x.flatten(1)).view_as(x)
                    for n, x in (("k", k), ("v", v))
                )
                prefix = self.finish(text, prefix, self.attend(q, k, v, mask[:p, :p]))
                actions = self.finish(expert, actions, self.attend(own, keys, values, mask[p:, :p]))
            else:
                own_q, own_k, own_v = self.project(expert, actions)
                q = torch.cat([q, self.rope(own_q, positions[p:])])
                k, v = torch.cat([k, self.rope(own_k, positions[p:])]), torch.cat([v, own_v])
                attended = self.attend(q, k, v, mask)
                prefix = self.finish(text, prefix, attended[:p])
                actions = self.finish(expert, actions, attended[p:])
        return self.linear("action_out_proj", self.rms("vlm_with_expert.lm_expert.norm", actions))

    # --- what a policy gives

    def loss(self, batch, noise, time):
        """The mean over valid steps and true dimensions; over everything with `loss_over_padding`."""
        total, count, width = 0.0, 0, batch["action"].shape[-1]
        for b, recorded in enumerate(batch["action"].double()):
            recorded = aloha(recorded, _from_angular_inv) if self.config.adapt_to_pi_aloha else recorded
            recorded = F.pad(recorded, (0, self.config.max_action_dim - width))
            x_t = time[b].double() * noise[b].double() + (1 - time[b].double()) * recorded
            error = (noise[b].double() - recorded - self.velocity(*self.prefix(batch, b), x_t, time[b])) ** 2
            if not self.config.loss_over_padding:
                error = error[~batch["action_is_pad"][b], :width]
            total, count = total + error.sum(), count + error.numel()
        return total / count

    def actions(self, batch, noise):
        """`(B, C, A)`."""
        chunks = []
        for b, x in enumerate(noise.double()):
            prefix = self.prefix(batch, b)
            for step in range(self.config.num_steps):
                time = torch.tensor(1 - step / self.config.num_steps, dtype=torch.float32)
                x = x - self.velocity(*prefix, x, time) / self.config.num_steps
            x = x[:, : self.config.action_feature.shape[0]]
            chunks.append(aloha(x, _from_angular) if self.config.adapt_to_pi_aloha else x)
        return torch.stack(chunks)


def aloha(vector, gripper):
    columns = list(vector.unbind(-1))
    for i in FLIPPED:
        columns[i] = -columns[i]
    for i in GRIPPERS:
        columns[i] = gripper(columns[i])
    return torch.stack(columns, -1)


def _normalize(x, low, high):
    return (x - low) / (high - low)


def _unnormalize(x, low, high):
    return x * (high - low) + low


def _to_angular(x):
    p = _unnormalize(x, 0.01844, 0.05800)
    return _normalize(torch.arcsin(((0.022**2 + p**2 - 0.036**2) / (2 * 0.022 * p)).clamp(-1, 1)), 0.4, 1.5)


def _from_angular(x):
    return _normalize(_unnormalize(x, 0.4, 1.5), -0.6213, 1.4910)


def _from_angular_inv(x):
    return _normalize(_unnormalize(x, -0.6213, 1.4910), 0.4, 1.5)
