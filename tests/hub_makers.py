"""Model folders as Hugging Face's libraries write them, without those libraries; and plain torch nets whose tensors have their names."""

from __future__ import annotations

import io
import json
from collections import OrderedDict

import safetensors.torch
import torch
from torch import nn

VIT = {
    "architectures": ["ViTForImageClassification"],
    "model_type": "vit",
    "hidden_act": "gelu",
    "image_size": 8,
    "num_attention_heads": 2,
    "num_channels": 1,
    "patch_size": 4,
    "layer_norm_eps": 1e-12,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
}
RESNET = {
    "architectures": ["ResNetForImageClassification"],
    "model_type": "resnet",
    "num_channels": 3,
    "num_labels": 5,
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
}
TIMM = {
    "architecture": "resnet18",
    "num_classes": 3,
    "pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "input_size": [3, 224, 224], "fixed_input_size": False},
}
PREPARED = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5], "image_std": [0.5]}


def folder(path, state, config=VIT, preparation=None, *, shards=0, pickled=False, more=()):
    """Write a model folder; `config` and `preparation`: values or bytes; `shards`: how many; `more`: names of other files with bytes."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", config), ("preprocessor_config.json", preparation)):
        if content is not None:
            (path / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    state = {name: value.detach().contiguous() for name, value in state.items()}
    if shards:
        places = {name: f"model-{number % shards + 1:05}-of-{shards:05}.safetensors" for number, name in enumerate(state)}
        for shard in sorted(set(places.values())):
            (path / shard).write_bytes(safetensors.torch.save({name: state[name] for name in state if places[name] == shard}))
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    elif pickled:
        out = io.BytesIO()
        torch.save(state, out)
        (path / "pytorch_model.bin").write_bytes(out.getvalue())
    else:
        (path / "model.safetensors").write_bytes(safetensors.torch.save(state, {"format": "pt"}))
    for name, content in more:
        (path / name).write_bytes(content)
    return path


def shaken(net, seed=3):
    """The net with weights and norms far from where they begin."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=draw) * 0.2)
            if name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=draw) + 0.5)
    return net.eval()


class Vit(nn.Module):
    """A. Dosovitskiy et al. (2020) with torch's own attention, its parts called as torchvision calls them."""

    def __init__(self, channels=1, side=8, patch=4, width=16, depth=2, heads=2, hidden=24, classes=3, *, eps=1e-6, act=nn.GELU, mean=False):
        super().__init__()
        self.mean = mean
        self.conv_proj = nn.Conv2d(channels, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder, self.heads = nn.Module(), nn.Sequential(OrderedDict(head=nn.Linear(width, classes)))
        self.encoder.pos_embedding = nn.Parameter(torch.zeros(1, (side // patch) ** 2 + 1, width))
        self.encoder.layers, self.encoder.ln = nn.Sequential(), nn.LayerNorm(width, eps)
        for number in range(depth):
            block = nn.Module()
            block.ln_1, block.ln_2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
            block.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
            block.mlp = nn.Sequential(nn.Linear(width, hidden), act(), nn.Dropout(0.0), nn.Linear(hidden, width))
            self.encoder.layers.add_module(f"encoder_layer_{number}", block)

    def forward(self, x):
        x = self.conv_proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1) + self.encoder.pos_embedding
        for block in self.encoder.layers:
            y = block.ln_1(x)
            x = x + block.self_attention(y, y, y, need_weights=False)[0]
            x = x + block.mlp(block.ln_2(x))
        return self.heads(self.encoder.ln(x[:, 1:].mean(dim=1)) if self.mean else self.encoder.ln(x)[:, 0])


TO_TIMM = {
    "class_token": "cls_token",
    "encoder.pos_embedding": "pos_embed",
    "conv_proj.": "patch_embed.proj.",
    "encoder.ln.": "norm.",
    "heads.head.": "head.",
    "encoder.layers.encoder_layer_": "blocks.",
    "ln_1": "norm1",
    "ln_2": "norm2",
    "self_attention.in_proj_": "attn.qkv.",
    "self_attention.out_proj": "attn.proj",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
}
TO_TRANSFORMERS = {
    "class_token": "vit.embeddings.cls_token",
    "encoder.pos_embedding": "vit.embeddings.position_embeddings",
    "conv_proj.": "vit.embeddings.patch_embeddings.projection.",
    "encoder.ln.": "vit.layernorm.",
    "heads.head.": "classifier.",
    "encoder.layers.encoder_layer_": "vit.encoder.layer.",
    "ln_1": "layernorm_before",
    "ln_2": "layernorm_after",
    "self_attention.in_proj_": "attention.attention.{}.",
    "self_attention.out_proj": "attention.output.dense",
    "mlp.0": "intermediate.dense",
    "mlp.3": "output.dense",
}


def renamed(state, words):
    """The tensors under other names; where a name has room for three, as three."""
    found = {}
    for name, value in state.items():
        for old, new in words.items():
            name = name.replace(old, new)
        parts = dict(zip(("query", "key", "value"), value.chunk(3), strict=True)) if "{}" in name else {"": value}
        found |= {name.format(part): one.clone() for part, one in parts.items()}
    return found


class Convolved(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1, *, act=True):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.normalization, self.act = nn.BatchNorm2d(outputs), act

    def forward(self, x):
        x = self.normalization(self.convolution(x))
        return torch.relu(x) if self.act else x


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, *, three, early):
        super().__init__()
        self.shortcut = nn.Sequential()
        if inputs != outputs or stride != 1:
            self.shortcut = Convolved(inputs, outputs, 1, stride, act=False)
        inner = outputs // 4
        self.layer = (
            nn.Sequential(
                Convolved(inputs, inner, 1, stride if early else 1),
                Convolved(inner, inner, 3, 1 if early else stride),
                Convolved(inner, outputs, 1, act=False),
            )
            if three
            else nn.Sequential(Convolved(inputs, outputs, 3, stride), Convolved(outputs, outputs, 3, act=False))
        )

    def forward(self, x):
        return torch.relu(self.layer(x) + self.shortcut(x))


class ResNet(nn.Module):
    """K. He et al. (2015), its parts called as transformers calls them."""

    def __init__(self, channels=3, classes=5, *, stem=8, widths=(8, 12, 16), depths=(1, 2, 1), three=False, first=False, early=False):
        super().__init__()
        self.resnet, self.classifier = nn.Module(), nn.Sequential(nn.Flatten(), nn.Linear(widths[-1], classes))
        self.resnet.embedder, self.resnet.encoder = nn.Module(), nn.Module()
        self.resnet.embedder.embedder = Convolved(channels, stem, 7, 2)
        self.resnet.encoder.stages = nn.ModuleList()
        inputs = stem
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            stage, stride = nn.Module(), 2 if number or first else 1
            stage.layers = nn.Sequential(
                *(Block(width if i else inputs, width, 1 if i else stride, three=three, early=early) for i in range(depth))
            )
            self.resnet.encoder.stages.append(stage)
            inputs = width

    def forward(self, x):
        x = nn.functional.max_pool2d(self.resnet.embedder.embedder(x), 3, 2, 1)
        for stage in self.resnet.encoder.stages:
            x = stage.layers(x)
        return self.classifier(x.mean(dim=(2, 3)))
