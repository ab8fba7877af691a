"""The emotion and behavior nets in Python PyTorch, written from their description alone: the oracle of the C++ nets.

State-dict names are those of the C++ nets, so weights pass both ways. `INPUTS` says what a net reads from a batch.
ResNet-18 is torchvision's; at another width its channels are replaced by scaled ones.
"""

import math

import torch
import torchvision
from torch import nn

from tiny_models import scaled


def channel_dropout(block, p):
    """torchvision's basic block with dropout of channels between its convolutions."""

    def forward(x):
        out = block.dropout(torch.relu(block.bn1(block.conv1(x))))
        identity = x if block.downsample is None else block.downsample(x)
        return torch.relu(block.bn2(block.conv2(out)) + identity)

    block.dropout = nn.Dropout2d(p)
    block.forward = forward


def resnet18(in_channels=3, width=1.0, dropout=0.0):
    """torchvision's ResNet-18 without its last layer: a module that gives the pooled features."""
    net = torchvision.models.resnet18()
    net.fc = nn.Identity()

    def narrowed(conv):
        inputs = in_channels if conv is net.conv1 else scaled(conv.in_channels, width)
        made = nn.Conv2d(inputs, scaled(conv.out_channels, width), conv.kernel_size, conv.stride, conv.padding, bias=False)
        nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
        return made

    for owner in list(net.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(owner, name, narrowed(child))
            elif isinstance(child, nn.BatchNorm2d):
                setattr(owner, name, nn.BatchNorm2d(scaled(child.num_features, width)))
    if dropout:
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            for block in stage:
                channel_dropout(block, dropout)
    return net


def mlp(sizes, dropout):
    layers = []
    for a, b in zip(sizes[:-2], sizes[1:-1]):
        layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def encoder(d_model, heads, layers, hidden, dropout=0.1):
    layer = nn.TransformerEncoderLayer(d_model, heads, hidden, dropout, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


# ---- A: emotion


class VisualEncoder(nn.Module):
    def __init__(self, d_model, width):
        super().__init__()
        self.backbone = resnet18(width=width)
        self.projection = nn.Sequential(nn.Linear(scaled(512, width), d_model), nn.ReLU(), nn.Dropout(0.1))

    def forward(self, image):
        frames = image if image.dim() == 5 else image[:, None]
        features = self.backbone(frames.flatten(0, 1))
        return self.projection(features).unflatten(0, frames.shape[:2])


class AudioEncoder(nn.Module):
    def __init__(self, d_model, width):
        super().__init__()
        a, b, c = (scaled(n, width) for n in (32, 64, 128))
        self.conv = nn.Sequential(
            nn.Conv2d(1, a, 3, padding=1), nn.BatchNorm2d(a), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(b, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU(),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d((1, None))
        self.gru = nn.GRU(c, d_model // 2, num_layers=2, bidirectional=True, batch_first=True, dropout=0.1)

    def forward(self, mel):
        x = self.pool(self.conv(mel[:, None])).squeeze(2).transpose(1, 2)
        sequence, states = self.gru(x)
        return sequence, torch.cat([states[2], states[3]], dim=1)


class CrossAttentionBlock(nn.Module):
    def __init__(self, d_model, heads):
        super().__init__()
        self.attention = nn.MultiheadAttention(d_model, heads, dropout=0.1, batch_first=True)
        self.norm1 = nn.LayerNorm(d_model)
        self.feed_forward = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.ReLU(), nn.Dropout(0.1), nn.Linear(4 * d_model, d_model)
        )
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(0.1)

    def forward(self, query, context):
        x = self.norm1(query + self.dropout(self.attention(query, context, context, need_weights=False)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class Emotion(nn.Module):
    def __init__(self, num_classes=7, d_model=256, num_heads=8, fusion="attention", modality="both", width=1.0):
        super().__init__()
        self.fusion, self.modality = fusion, modality
        features = d_model
        if modality != "audio":
            self.visual_encoder = VisualEncoder(d_model, width)
        if modality != "visual":
            self.audio_encoder = AudioEncoder(d_model, width)
        if modality == "both" and fusion == "attention":
            self.visual_to_audio = CrossAttentionBlock(d_model, num_heads)
            self.audio_to_visual = CrossAttentionBlock(d_model, num_heads)
        if modality == "both" and fusion == "transformer":
            self.modality_embedding = nn.Parameter(0.02 * torch.randn(2, d_model))
            self.fusion_encoder = encoder(d_model, num_heads, 3, 4 * d_model)
        elif modality == "both":
            features = 2 * d_model
        self.classifier = mlp([features, 512, 256, num_classes], 0.3)

    def fuse(self, image, mel):
        if self.modality == "visual":
            return self.visual_encoder(image).mean(1)
        sequence, feature = self.audio_encoder(mel)
        if self.modality == "audio":
            return feature
        frames = self.visual_encoder(image)
        if self.fusion == "concat":
            return torch.cat([frames.mean(1), feature], dim=1)
        if self.fusion == "transformer":
            joined = torch.cat([frames + self.modality_embedding[0], sequence + self.modality_embedding[1]], dim=1)
            return self.fusion_encoder(joined).mean(dim=1)
        seen = self.visual_to_audio(frames, sequence).mean(dim=1)
        heard = self.audio_to_visual(sequence.mean(dim=1, keepdim=True), frames)[:, 0]
        return torch.cat([seen, heard], dim=1)

    def forward(self, image, mel):
        return self.classifier(self.fuse(image, mel))


# ---- B: behavior


class SpectralEncoder(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        features = scaled(512, width)
        self.backbone = resnet18(channels, width, dropout=0.1)
        self.channel_attention = nn.Module()
        self.channel_attention.fc = nn.Sequential(
            nn.Linear(features, features // 16, bias=False), nn.ReLU(),
            nn.Linear(features // 16, features, bias=False), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, stft):
        pooled = self.backbone(stft)
        return pooled * self.channel_attention.fc(pooled)


class SeriesEncoder(nn.Module):
    def __init__(self, channels, d_model, heads, layers, hidden):
        super().__init__()
        self.d_model = d_model
        self.input_projection = nn.Linear(channels, d_model)
        self.dropout = nn.Dropout(0.1)
        self.encoder = encoder(d_model, heads, layers, hidden)

    def positions(self, like):
        position = torch.arange(like.shape[1], dtype=torch.float64).unsqueeze(1)
        rate = torch.exp(torch.arange(0, self.d_model, 2, dtype=torch.float64) * (-math.log(10000.0) / self.d_model))
        table = torch.zeros(like.shape[1], self.d_model, dtype=torch.float64)
        table[:, 0::2] = torch.sin(position * rate)
        table[:, 1::2] = torch.cos(position * rate)
        return table.to(like.dtype)

    def forward(self, series):
        x = self.input_projection(series) * math.sqrt(self.d_model)
        return self.encoder(self.dropout(x + self.positions(x))).mean(dim=1)


class Cnn(nn.Module):
    def __init__(self, num_classes=4, channels=6, width=1.0, **_):
        super().__init__()
        self.encoder = SpectralEncoder(channels, width)
        self.classifier = mlp([scaled(512, width), scaled(256, width), scaled(128, width), num_classes], 0.3)

    def forward(self, stft):
        return self.classifier(self.encoder(stft))


class Transformer(nn.Module):
    def __init__(self, num_classes=4, channels=6, d_model=512, num_heads=8, num_layers=6, d_ff=None, **_):
        super().__init__()
        self.encoder = SeriesEncoder(channels, d_model, num_heads, num_layers, d_ff or 4 * d_model)
        self.classifier = mlp([d_model, d_model // 2, d_model // 4, num_classes], 0.3)

    def forward(self, series):
        return self.classifier(self.encoder(series))


class Fusion(nn.Module):
    def __init__(self, num_classes=4, channels=6, d_model=256, num_heads=4, num_layers=4, d_ff=None, width=1.0):
        super().__init__()
        self.cnn = SpectralEncoder(channels, width)
        self.cnn_projection = nn.Linear(scaled(512, width), d_model)
        self.transformer = SeriesEncoder(channels, d_model, num_heads, num_layers, d_ff or 4 * d_model)
        self.attention = nn.MultiheadAttention(d_model, 8, dropout=0.1, batch_first=True)
        self.norm = nn.LayerNorm(d_model)
        self.branch_weights = nn.Parameter(torch.zeros(2))
        self.classifier = mlp([d_model, d_model // 2, d_model // 4, num_classes], 0.3)

    def forward(self, stft, series):
        tokens = torch.stack([self.cnn_projection(self.cnn(stft)), self.transformer(series)], dim=1)
        tokens = self.norm(tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0])
        a, b = torch.softmax(self.branch_weights, dim=0)
        return self.classifier(a * tokens[:, 0] + b * tokens[:, 1])


class Dual(nn.Module):
    def __init__(self, num_classes=4, channels=6, d_model=192, num_heads=8, num_layers=4, d_ff=None, width=1.0):
        super().__init__()
        self.half = channels // 2
        self.ppg = self.front_end(self.half, width)
        self.imu = self.front_end(channels - self.half, width)
        self.ppg_embedding = nn.Conv1d(scaled(128, width), d_model, 1)
        self.imu_embedding = nn.Conv1d(scaled(128, width), d_model, 1)
        self.fusion = nn.Conv1d(2 * d_model, d_model, 1)
        self.encoder = encoder(d_model, num_heads, num_layers, d_ff or 4 * d_model)
        self.fc = nn.Linear(d_model, num_classes)

    @staticmethod
    def front_end(channels, width):
        a, b = scaled(64, width), scaled(128, width)
        return nn.Sequential(
            nn.Conv1d(channels, a, 9, padding=4, bias=False), nn.BatchNorm1d(a), nn.ReLU(),
            nn.Conv1d(a, b, 9, padding=4, bias=False), nn.BatchNorm1d(b), nn.ReLU(),
            nn.MaxPool1d(2),
        )  # fmt: skip

    def forward(self, series):
        x = series.transpose(1, 2)
        ppg, imu = self.ppg(x[:, : self.half]), self.imu(x[:, self.half :])
        joined = torch.cat([self.ppg_embedding(ppg), self.imu_embedding(imu)], dim=1)
        return self.fc(self.encoder(self.fusion(joined).transpose(1, 2)).mean(dim=1))


MODELS = {"emotion": Emotion, "cnn": Cnn, "transformer": Transformer, "fusion": Fusion, "dual": Dual}
INPUTS = {
    "emotion": ("image", "mel"),
    "cnn": ("stft",),
    "transformer": ("series",),
    "fusion": ("stft", "series"),
    "dual": ("series",),
}


def make(name, **sizes):
    return MODELS[name](**sizes)
