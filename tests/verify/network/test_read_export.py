"""torch modules: the graph equals eager torch, whichever way the module comes in; what cannot be read is refused."""

import copy
import io
import json
import logging
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from verify.errors import ModelError, UnsupportedOperation
from verify.network.evaluate import evaluate
from verify.network.module import NetworkModule
from verify.network.read_export import read_export, read_pt2, trace
from verify.network.read_onnx import read_onnx
from verify.network.write_onnx import onnx_bytes


class Shortcut(nn.Module):
    """Residual block; a widening one subsamples its shortcut and pads channels on both sides."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.extra = after - before

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return functional.relu(y + x)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(Shortcut(4, 4, 1), Shortcut(4, 9, 2))
        self.linear = nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(functional.relu_(self.bn1(self.conv1(x))))
        x = functional.avg_pool2d(x, x.size()[3])
        return self.linear(x.view(x.size(0), -1))


def depthwise() -> nn.Module:
    def separable(before: int, after: int, act: nn.Module) -> nn.Module:
        deep = nn.Conv2d(before, before, 3, 1, 1, groups=before, bias=False)
        return nn.Sequential(
            deep, nn.BatchNorm2d(before), act, nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after)
        )

    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), separable(4, 6, nn.ReLU6()), nn.SiLU(inplace=True), separable(6, 8, nn.Hardswish()),
        nn.Hardsigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 3),
    )  # fmt: skip


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, length, width))


class Vision(nn.Module):
    """A small vision transformer with a class token and learned positions."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 5, width))
        self.before, self.attention, self.after = nn.LayerNorm(width), Attention(width, 2), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, width))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        x = x + self.attention(self.before(x))
        return self.head(x + self.mlp(self.after(x)))[:, 0]


class Branches(nn.Module):
    """Concatenation, pooling, a gate per channel, scalars, chunks and stacks."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 4, padding="same")
        self.c = nn.Conv2d(3, 4, 5, padding=2, padding_mode="zeros")
        self.gate = nn.Sequential(nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 12), nn.Sigmoid())
        self.shift, self.head = nn.Parameter(torch.randn(12, 1, 1)), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        parts = [functional.leaky_relu(self.a(x)), self.b(x).clamp(min=-0.5), torch.tanh(self.c(x))]
        y = functional.max_pool2d(torch.cat(parts, 1), 2, 2, ceil_mode=True)
        y = functional.avg_pool2d(y, 3, 2, 1, count_include_pad=False) + self.shift
        y = y * self.gate(y.mean((2, 3)))[:, :, None, None]
        low, high = (2 * y - 0.5 / 3 + 1.0).chunk(2, dim=1)
        y = torch.stack([low, 1 - high], dim=2).flatten(1, 2)
        return functional.softmax(self.head(functional.adaptive_avg_pool2d(y, (2, 2)).sum((2, 3))) / 2, dim=-1)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.erf(self.first(x))) ** 2


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 8), nn.GELU(), nn.Linear(8, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 3)
    )


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "perceptron": (perceptron, (3, 8, 8)),
    "residual": (Residual, (3, 8, 8)),
    "depthwise": (depthwise, (3, 8, 8)),
    "vision": (Vision, (3, 8, 8)),
    "branches": (Branches, (3, 13, 13)),
    "encoder": (Encoder, (5, 8)),
    "tied": (Tied, (4,)),
}


def make(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, tuple[int, ...]]:
    """The module in training mode, with lively batch norm statistics."""
    torch.manual_seed(0)
    factory, shape = MODULES[name]
    module = factory()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low, high in ((part.running_mean, -0.5, 0.5), (part.running_var, 0.5, 2.0)):
                assert isinstance(tensor, Tensor)
                tensor.uniform_(low, high)
            nn.init.uniform_(part.weight, 0.5, 2.0)
            nn.init.uniform_(part.bias, -1.0, 1.0)
    return module.to(dtype).train(), shape


def eager(module: nn.Module, inputs: Tensor) -> Any:
    with torch.no_grad():
        return copy.deepcopy(module).eval()(inputs).numpy()


@pytest.mark.parametrize("name", MODULES)
def test_float64_equals_eager(name: str) -> None:
    """At most 1e-12 from eager float64; every parameter bears its name in the state_dict."""
    module, shape = make(name)
    network = trace(module, torch.randn(1, *shape, dtype=torch.float64))
    inputs = torch.randn(6, *shape, dtype=torch.float64)
    expected = eager(module, inputs)
    assert np.abs(evaluate(network, inputs.numpy()) - expected).max() <= 1e-12 * max(1.0, np.abs(expected).max())
    found = NetworkModule(network, torch.float64)(inputs).detach().numpy()
    assert np.abs(found - expected).max() <= 1e-12 * max(1.0, np.abs(expected).max())
    state = module.state_dict()
    named = {key: array for key, array in network.parameters.items() if key in state}
    assert all(np.array_equal(state[key].numpy().reshape(array.shape), array) for key, array in named.items())
    trained = {key for key, _ in module.named_parameters()}
    assert trained <= set(named)
    assert all("/" in key for key in set(network.parameters) - set(named))  # numbers written in the code


def some(*names: str) -> list[Any]:
    """Modules of the default run; the others take their turn with the slow tests."""
    return [pytest.param(n, marks=[] if n in names else pytest.mark.slow) for n in MODULES]


@pytest.mark.parametrize("name", some("residual"))
def test_float32_goes_through_files(name: str, tmp_path: Path) -> None:
    """Traced in float32: the ONNX file and the .pt2 file read back as the equal network."""
    module, shape = make(name, torch.float32)
    program = torch.export.export(copy.deepcopy(module).eval(), (torch.randn(1, *shape),))
    network = read_export(program)
    assert read_onnx(onnx_bytes(network)).digest() == network.digest()
    torch.export.save(program, tmp_path / "net.pt2")
    assert read_pt2(tmp_path / "net.pt2").digest() == network.digest()


@pytest.mark.parametrize("name", some("tied"))
def test_dynamic_batch(name: str, tmp_path: Path) -> None:
    module, shape = make(name)
    example = torch.randn(3, *shape, dtype=torch.float64)
    program = torch.export.export(copy.deepcopy(module).eval(), (example,), dynamic_shapes=({0: Dim.DYNAMIC},))
    torch.export.save(program, tmp_path / "net.pt2")
    expected = eager(module, example)
    for network in (read_export(program), read_pt2(tmp_path / "net.pt2")):
        assert network.input_shape == shape
        assert np.abs(evaluate(network, example.numpy()) - expected).max() <= 1e-12 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("vision", {"opset_version": 23}, marks=pytest.mark.slow),
        pytest.param("branches", {}, marks=pytest.mark.slow),
        pytest.param("residual", {"opset_version": 18}, marks=pytest.mark.slow),
        pytest.param("encoder", {"dynamic_shapes": ({0: Dim.DYNAMIC},)}, marks=pytest.mark.slow),
        pytest.param("depthwise", {"optimize": False}, marks=pytest.mark.slow),
        pytest.param("vision", {"optimize": False}, marks=pytest.mark.slow),
        pytest.param("vision", {"opset_version": 18, "dynamic_shapes": ({0: Dim.DYNAMIC},)}, marks=pytest.mark.slow),
        pytest.param("perceptron", {"dynamo": False, "opset_version": 11}, marks=pytest.mark.slow),
        pytest.param("branches", {"dynamo": False, "opset_version": 13}, marks=pytest.mark.slow),
    ],
)
def test_files_of_the_onnx_exporter(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """torch.onnx.export of the module reads as the same function."""
    module, shape = make(name, torch.float32)
    count = 2 if "dynamic_shapes" in options else 1
    path = tmp_path / "net.onnx"
    more = {} if options.get("dynamo") is False else {"external_data": False, "verbose": False}
    torch.onnx.export(copy.deepcopy(module).eval(), (torch.randn(count, *shape),), str(path), **more, **options)
    network = read_onnx(path)
    inputs = torch.randn(4, *shape)
    expected = eager(module, inputs)
    assert np.abs(evaluate(network, inputs.numpy()) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_module_is_left_alone() -> None:
    module, shape = make("residual")
    before = {key: value.clone() for key, value in module.state_dict().items()}
    trace(module, torch.randn(1, *shape, dtype=torch.float64))
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def test_nodes_bear_the_names_of_modules() -> None:
    module, shape = make("residual")
    names = [n.name for n in trace(module, torch.randn(1, *shape, dtype=torch.float64))]
    assert names[:4] == ["conv1", "bn1", "relu", "blocks.0.conv1"]
    assert names[-1] == "linear"
    assert {"slice_2", "pad"} <= set(names)


def test_tied_weights_are_one_parameter() -> None:
    module, shape = make("tied")
    network = trace(module, torch.randn(1, *shape, dtype=torch.float64))
    keys = [n.parameters["weight"] for n in network if n.op == "linear"]
    assert keys == ["first.weight", "first.weight"]
    assert "second.weight" not in network.parameters


def test_a_module_called_twice_gives_two_nodes() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.relu(self.fc(x)))

    network = trace(Twice(), torch.randn(1, 3))
    assert [(n.name, n.parameters.get("weight")) for n in network if n.op == "linear"] == [
        ("fc", "fc.weight"),
        ("linear_1", "fc.weight"),
    ]


FORMS: dict[str, tuple[tuple[int, ...], list[Callable[[Tensor], Tensor]]]] = {
    "pooling": (
        (2, 7, 8),
        [
            lambda x: functional.max_pool2d(x, (2, 3), (3, 2), (1, 1), ceil_mode=True),
            lambda x: functional.max_pool2d(x, 2, 1, dilation=(2, 3)),
            lambda x: functional.avg_pool2d(x, 2, 3, ceil_mode=True),
            lambda x: functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            lambda x: functional.avg_pool2d(x, 3, 1, 1),
            lambda x: functional.avg_pool1d(x.flatten(2), 4, 3, 2),
            lambda x: functional.max_pool1d(x.flatten(2), 3, 2, 1),
            lambda x: functional.avg_pool3d(x[:, None], 2, 1, 1),
            lambda x: functional.max_pool3d(x[:, None], 2),
            lambda x: functional.adaptive_avg_pool2d(x, (1, 4)),
            lambda x: functional.adaptive_max_pool2d(x, (7, 2)),
            lambda x: functional.adaptive_avg_pool2d(x, 1),
        ],
    ),
    "elements": (
        (4, 3),
        [
            lambda x: functional.relu6(x * 9) - functional.hardtanh(x, -0.25, 0.5),
            lambda x: x.clamp(min=0.1) + x.clamp(max=-0.1) + x.clip(-0.5, 0.5),
            lambda x: functional.prelu(x, torch.full((4,), 0.3, dtype=x.dtype)),
            lambda x: functional.gelu(x, approximate="tanh") + torch.erf(-x) + functional.hardsigmoid(x),
            lambda x: (1 - x) * 3 / 4 + x.square() - x**2 + (2.5 + x) * (x - 1),
            lambda x: functional.softmax(x, 1) + torch.softmax(x, -1),
            lambda x: torch.neg(x).sum(1, keepdim=True) + x.mean(-1, keepdim=True),
            lambda x: functional.silu(x) + functional.hardswish(x),
        ],
    ),
    "layout": (
        (4, 6),
        [
            lambda x: x[:, 1:, ::2].flatten(1),
            lambda x: x[:, -1:, -1:].expand(-1, 2, 3),
            lambda x: torch.cat([p.sum(2) for p in x.split((1, 3, 2), dim=2)], 1),
            lambda x: torch.stack(x.chunk(3, 2), 1).permute(0, 2, 3, 1).reshape(1, -1),
            lambda x: x.unflatten(2, (2, 3)).transpose(1, 2).unsqueeze(-1).squeeze(-1).flatten(2).sum(1),
            lambda x: x.narrow(2, 1, 3).squeeze(1).index_select(1, torch.tensor([3, 0, 0])),
            lambda x: functional.pad(x, (1, 2, 0, 1), value=0.5),
            lambda x: torch.cat([a * (i + 1) for i, a in enumerate(x.unbind(1))], 1),
            lambda x: x.movedim(1, 0).contiguous().view(4, 6).t().reshape(1, 24),
        ],
    ),
    "products": (
        (4, 6),
        [
            lambda x: x @ torch.arange(12.0, dtype=x.dtype).reshape(6, 2),
            lambda x: torch.bmm(x, x.transpose(1, 2)),
            lambda x: torch.matmul(x.unsqueeze(1), x.transpose(1, 2).unsqueeze(1)),
            lambda x: torch.mm(x[0], torch.ones(6, 3, dtype=x.dtype)),
            lambda x: torch.addmm(torch.ones(3, dtype=x.dtype), x.flatten(1), torch.ones(24, 3, dtype=x.dtype)),
            lambda x: functional.layer_norm(x, (4, 6)),
            lambda x: functional.conv1d(
                x, torch.ones(2, 2, 3, dtype=x.dtype), stride=2, dilation=2, groups=2, padding=1
            ),
            lambda x: functional.conv2d(x[:, None], torch.ones(1, 1, 2, 4, dtype=x.dtype), padding="same"),
            lambda x: functional.conv3d(x[:, None, None], torch.ones(1, 1, 1, 2, 2, dtype=x.dtype), padding="valid"),
            lambda x: functional.scaled_dot_product_attention(x, x[:, 1:], x[:, :-1], scale=0.7),
        ],
    ),
}


class Joined(nn.Module):
    """The outputs of several functions, one after the other."""

    def __init__(self, functions: list[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.functions = functions
        self.norm = nn.BatchNorm1d(2, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([function(x).reshape(1, -1) for function in self.functions], 1)


@pytest.mark.parametrize("family", FORMS)
def test_forms_of_operators(family: str) -> None:
    """Each form of an operator gives what eager torch gives in float64."""
    shape, functions = FORMS[family]
    module = Joined(functions)
    for seed in range(2):
        x = torch.randn(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        expected = eager(module, x)
        found = evaluate(trace(module, x), x.numpy())
        assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


def test_batch_norm_without_affine_parameters() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.Linear(3, 2)).double()
    module[0].running_mean.uniform_(-1, 1)
    network = trace(module, torch.randn(1, 3, dtype=torch.float64))
    assert network.nodes[0].parameters == {
        "weight": "0.weight", "bias": "0.bias", "mean": "0.running_mean", "variance": "0.running_var",
    }  # fmt: skip
    x = torch.randn(5, 3, dtype=torch.float64)
    assert np.abs(evaluate(network, x.numpy()) - eager(module, x)).max() <= 1e-12


# refusals


class Calls(nn.Module):
    """A module around a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def branch(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


UNSUPPORTED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "unknown operator": (functional.elu, "aten.elu.default"),
    "quotient of values": (lambda x: x / x, "divisor"),
    "masked attention": (
        lambda x: functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], is_causal=True),
        "is_causal",
    ),
    "uneven adaptive pooling": (lambda x: functional.adaptive_avg_pool1d(x[:, None], 3), "does not divide"),
    "average pool divisor": (
        lambda x: functional.avg_pool2d(x[:, None, None], (1, 2), divisor_override=3),
        "divisor_override",
    ),
    "circular padding": (lambda x: functional.pad(x[:, None], (1, 1), mode="circular"), "node"),
    "add with alpha": (lambda x: torch.add(x, x, alpha=2), "alpha"),
    "random numbers": (lambda x: x + torch.rand(4), "aten.rand"),
}


@pytest.mark.parametrize("case", UNSUPPORTED, ids=str)
def test_unsupported_form_is_named(case: str) -> None:
    function, message = UNSUPPORTED[case]
    with pytest.raises(UnsupportedOperation, match=r"supported ops: .*aten\.conv2d") as caught:
        trace(Calls(function), torch.randn(1, 4))
    assert message in str(caught.value)


ILL_FORMED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "control flow": (branch, "cannot be traced by torch.export"),
    "two outputs": (lambda x: (x, x + 1), "2 outputs"),
    "no tensor": (lambda x: 3, "output"),
    "tensor in a list": (lambda x: [x + 1], "expected one tensor"),
    "constant output": (lambda x: torch.ones(1, 3), "does not depend"),
    "mixes samples": (lambda x: x.mean(0, keepdim=True), "batch axis"),
    "softmax over samples": (lambda x: functional.softmax(x, 0), "batch axis"),
    "NaN": (lambda x: x * float("nan"), "NaN or infinity"),
}


@pytest.mark.parametrize("case", ILL_FORMED, ids=str)
def test_ill_formed_module_is_refused(case: str) -> None:
    function, message = ILL_FORMED[case]
    with pytest.raises(ModelError) as caught:
        trace(Calls(function), torch.randn(1, 4))
    assert message in str(caught.value)


def test_example_must_be_one_sample() -> None:
    module, shape = make("perceptron")
    for example in (torch.randn(2, *shape), torch.randn(()), torch.zeros(1, *shape, dtype=torch.int64)):
        with pytest.raises(ModelError, match="example input"):
            trace(module, example)


def test_two_inputs_are_refused() -> None:
    program = torch.export.export(Calls(lambda x: x), (torch.randn(1, 4),))

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    assert read_export(program).output == read_export(program).input
    with pytest.raises(ModelError, match="2 inputs"):
        read_export(torch.export.export(Two(), (torch.randn(1, 4), torch.randn(1, 4))))


def test_training_mode_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    with pytest.raises(ModelError, match=r"\.eval\(\)"):
        read_export(torch.export.export(module, (torch.randn(1, 3, 4, 4),)))


def test_fixed_batch_above_one_is_refused() -> None:
    program = torch.export.export(nn.Linear(3, 2), (torch.randn(5, 3),))
    with pytest.raises(ModelError, match="batch size 5"):
        read_export(program)


# .pt2 files


class Bomb:
    """Unpickling this runs a command."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(nn.Linear(3, 2).eval(), (torch.randn(1, 3),)), path)
    return path


def altered(path: Path, changes: dict[str, Callable[[bytes], bytes] | bytes]) -> Path:
    """The archive with some entries changed; keys are the ends of their names, "+name" adds one."""
    with zipfile.ZipFile(path) as archive:
        parts = {e.filename: archive.read(e) for e in archive.infolist()}
    for end, change in changes.items():
        if end.startswith("+"):
            parts[f"net/{end[1:]}"] = change if isinstance(change, bytes) else change(b"")
            continue
        (name,) = [n for n in parts if n.endswith(end)]
        parts[name] = change(parts[name]) if callable(change) else change
    target = path.with_name("altered.pt2")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return target


def test_pickled_sample_inputs_are_never_run(saved: Path, tmp_path: Path) -> None:
    """torch.export.load would run the command hidden in the sample inputs; this reader leaves them behind."""
    mark = tmp_path / "pwned"
    buffer = io.BytesIO()
    torch.save(((Bomb(mark),), {}), buffer)
    path = altered(saved, {"sample_inputs/model.pt": buffer.getvalue()})
    assert read_pt2(path).output_shape == (2,)
    assert not mark.exists()
    logging.disable(logging.CRITICAL)
    try:
        torch.export.load(path)  # the attack is real
    finally:
        logging.disable(logging.NOTSET)
    assert mark.exists()


def test_pickled_weights_and_constants_are_refused(saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    pickled = pickle.dumps(Bomb(mark))

    def use_pickle(config: bytes) -> bytes:
        return config.replace(b'"use_pickle": false', b'"use_pickle": true', 1)

    def opaque(config: bytes) -> bytes:
        entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        return json.dumps({"config": {"c": entry}}).encode()

    for changes in (
        {"model_weights_config.json": use_pickle, "weights/weight_0": pickled},
        {"model_constants_config.json": opaque, "+data/constants/opaque_obj_0": pickled},
    ):
        with pytest.raises(ModelError, match="pickle"):
            read_pt2(altered(saved, changes))  # type: ignore[arg-type]
    legacy = altered(saved, {"+data/weights/model.pt": pickled})
    assert read_pt2(legacy).output_shape == (2,)  # left behind
    assert not mark.exists()


GRAPH_ATTACKS = {
    "call of a function": (b"torch.ops.aten.linear.default", b"torch.os.system.default", "operator"),
    "name that is code": (b'"p_weight"', b'"x=__import__(\\"os\\")"', "not of a form"),
    "expression that is code": (
        b'{"as_int": 3}',
        b'{"as_expr": {"expr_str": "__import__(1)", "hint": null}}',
        "expression",
    ),
    "unknown kind of argument": (
        b'"as_tensor": {"name": "p_bias"}',
        b'"as_operator": "torch.os.system"',
        "as_operator",
    ),
    "not a number": (b'"as_int": 3', b'"as_int": NaN', "NaN"),
}


@pytest.mark.parametrize("case", GRAPH_ATTACKS, ids=str)
def test_graph_outside_the_grammar_is_refused(case: str, saved: Path) -> None:
    old, new, message = GRAPH_ATTACKS[case]

    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new)

    with pytest.raises(ModelError) as caught:
        read_pt2(altered(saved, {"models/model.json": change}))
    assert message in str(caught.value)


def test_damaged_program_files(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    (tmp_path / "short.pt2").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.pt2").write_bytes(b"hello")
    for name, message in (("short.pt2", "cut short"), ("text.pt2", "not a .pt2 file"), ("gone.pt2", "no such file")):
        with pytest.raises(ModelError, match=message):
            read_pt2(tmp_path / name)
    for end in ("weights/weight_0", "models/model.json", "model_weights_config.json", "archive_version"):
        with pytest.raises(ModelError, match=r"altered\.pt2"):
            read_pt2(altered(saved, {end: b"{}"}))
    with pytest.raises(ModelError, match="compiled code"):
        read_pt2(altered(saved, {"+data/aotinductor/model/x.so": b"\x7fELF"}))
