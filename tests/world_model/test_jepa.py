import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jepa_mpc.errors import UserError
from jepa_mpc.world_model.model.encoder import EncoderConfig, build_encoder
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.model.predictor import PredictorConfig


def untrained(kind="conv", seed=0, **predictor) -> JEPA:
    """A small model with every weight random, the zero-initialised gates and outputs too."""
    torch.manual_seed(seed)
    encoder = EncoderConfig(
        kind=kind, image_size=32, channels=(4, 8, 8, 8), patch_size=8, width=24, depth=2, num_heads=2
    )
    model = JEPA(JEPAConfig(6, 10, 20, encoder, PredictorConfig(width=32, depth=3, num_heads=4, **predictor)))
    for parameter in model.predictor.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    model.action_mean.normal_(), model.action_std.uniform_(0.5, 2)
    return model.eval()


def pictures(*lead):
    return torch.randint(0, 256, (*lead, 32, 32, 3), dtype=torch.uint8)


@pytest.mark.parametrize("sizes", [{}, {"head_dim": 12, "mlp_width": 40, "projector_hidden": 24}])
@pytest.mark.parametrize("history_len", [1, 2, 3])
def test_cached_rollout_equals_encoding_the_window_anew(history_len, sizes):
    model, B, S, H = untrained(**sizes), 2, 5, 4
    z, past = torch.randn(B, history_len, 10), torch.randn(B, history_len - 1, 6)
    actions = torch.randn(B, S, H, 6)
    cached = model.rollout(z, past, actions)
    assert cached.shape == (B, S, H, 10)
    for s in range(S):
        window, acts = z, torch.cat([past, actions[:, s]], dim=1)
        for step in range(H):
            predicted = model.predict(window, acts[:, : window.shape[1]])[:, -1]
            torch.testing.assert_close(cached[:, s, step], predicted, atol=1e-5, rtol=0)
            window = torch.cat([window, predicted[:, None]], dim=1)


def by_definition(predictor, z, actions):
    """The predictor token by token and head by head, of z (B, T, D) and normalised actions (B, T, A)."""
    condition = predictor.action_encoder(actions)
    x = predictor.input(z) + predictor.position[: z.shape[1]]
    for block in predictor.blocks:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = block.modulation(condition).chunk(6, dim=-1)
        query, key, value = block.qkv(F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift).chunk(3, dim=-1)
        width = query.shape[-1] // block.num_heads
        attended = torch.zeros_like(query)
        for head in range(block.num_heads):
            mine = slice(head * width, (head + 1) * width)
            for t in range(z.shape[1]):
                match = torch.einsum("bd,bsd->bs", query[:, t, mine], key[:, : t + 1, mine]) / width**0.5
                attended[:, t, mine] = torch.einsum("bs,bsd->bd", match.softmax(1), value[:, : t + 1, mine])
        x = x + gate * block.out(attended)
        x = x + mlp_gate * block.mlp(F.layer_norm(x, x.shape[-1:]) * (1 + mlp_scale) + mlp_shift)
    return z + predictor.output(predictor.norm(x))


@pytest.mark.parametrize("sizes", [{}, {"head_dim": 12, "mlp_width": 40}])
def test_the_predictor_equals_its_definition(sizes):
    model, z, actions = untrained(**sizes), torch.randn(2, 5, 10), torch.randn(2, 5, 6)
    expected = by_definition(model.predictor, z, (actions - model.action_mean) / model.action_std)
    torch.testing.assert_close(model.predict(z, actions), expected, atol=1e-4, rtol=1e-4)


def test_actions_come_in_through_gates_that_are_shut_at_the_start():
    torch.manual_seed(0)
    model = JEPA(JEPAConfig(6, encoder=EncoderConfig(image_size=32))).eval()
    torch.nn.init.normal_(model.predictor.output.weight)
    z, predictor = torch.randn(2, 3, 64), model.predictor
    untouched = z + predictor.output(predictor.norm(predictor.input(z) + predictor.position[:3]))
    torch.testing.assert_close(model.predict(z, torch.randn(2, 3, 6)), untouched)


def test_a_prediction_sees_neither_later_embeddings_nor_later_actions():
    model = untrained()
    z, actions = torch.randn(1, 6, 10), torch.randn(1, 6, 6)
    before = model.predict(z, actions)
    z[:, 4:], actions[:, 4:] = torch.randn(1, 2, 10), torch.randn(1, 2, 6)
    after = model.predict(z, actions)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4:], before[:, 4:])


def test_predictions_depend_on_history_and_on_the_action():
    model = untrained()
    z, actions = torch.randn(1, 3, 10), torch.randn(1, 3, 6)
    before = model.predict(z, actions)[:, -1]
    for changed in ("history", "action"):
        other_z, other_actions = z.clone(), actions.clone()
        (other_z if changed == "history" else other_actions)[:, 0 if changed == "history" else 2] += 1
        assert not torch.allclose(model.predict(other_z, other_actions)[:, -1], before, atol=1e-4)


def test_an_untrained_predictor_says_that_nothing_moves():
    torch.manual_seed(0)
    model = JEPA(JEPAConfig(6, encoder=EncoderConfig(image_size=32))).eval()
    z = torch.randn(2, 3, 64)
    torch.testing.assert_close(model.predict(z, torch.randn(2, 3, 6)), z)


def test_actions_are_normalised_inside():
    model = untrained()
    z, actions = torch.randn(1, 2, 10), torch.randn(1, 2, 6)
    expected = model.predict(z, actions)
    mean, std = model.action_mean.clone(), model.action_std.clone()
    model.action_mean.zero_(), model.action_std.fill_(1)
    torch.testing.assert_close(model.predict(z, (actions - mean) / std), expected)


def test_distance_is_the_length_of_the_difference():
    z, goal = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([0.0, -4.0])
    torch.testing.assert_close(JEPA.latent_distance(z, goal), torch.tensor([5.0, 5.0]))


@pytest.mark.parametrize("num_past", [0, 2])
def test_an_offset_is_added_to_every_prediction_of_a_rollout(num_past):
    """As one that is fed back by hand."""
    model, offset = untrained(), torch.randn(2, 10)
    z, past, actions = torch.randn(2, 1 + num_past, 10), torch.randn(2, num_past, 6), torch.randn(2, 3, 2, 6)
    found = model.rollout(z, past if num_past else None, actions, offset)
    for sample in range(3):
        seen, done = z, past
        for step in range(2):
            done = torch.cat([done, actions[:, sample, step : step + 1]], dim=1)
            following = model.predict(seen, done)[:, -1] + offset
            torch.testing.assert_close(found[:, sample, step], following)
            seen = torch.cat([seen, following[:, None]], dim=1)


def test_too_long_a_sequence_is_refused():
    with pytest.raises(UserError, match="9 tokens exceed the predictor's max_len 8"):
        untrained().rollout(torch.randn(1, 3, 10), torch.randn(1, 2, 6), torch.randn(1, 2, 7, 6))


@pytest.mark.parametrize("kind", ["conv", "vit"])
def test_a_picture_encodes_alike_alone_and_in_a_batch(kind):
    model, batch = untrained(kind), pictures(3, 2)
    z = model.encode(batch)
    assert z.shape == (3, 2, 10)
    torch.testing.assert_close(model.encode(batch[1, 0]), z[1, 0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(z[0, 0], z[0, 1], atol=1e-4)


def test_pictures_of_the_wrong_shape_are_refused():
    with pytest.raises(UserError, match=r"\(\.\.\., 32, 32, 3\), not \(1, 3, 32, 32\)"):
        untrained().encode(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("num_context", [1, 3])
def test_prediction_errors_equal_their_definitions(num_context):
    model, actions = untrained(), torch.randn(4, 4, 6)
    z, target = torch.randn(2, 4, 5, 10)
    scores = model.score_predictions(z, target, actions, num_context)
    predicted = torch.stack([model.predict(z[:, : t + 1], actions[:, : t + 1])[:, -1] for t in range(4)], dim=1)
    torch.testing.assert_close(scores.predicted, predicted)
    torch.testing.assert_close(scores.one_step, F.mse_loss(predicted, target[:, 1:]))
    window_z = z[:, :num_context]
    while window_z.shape[1] < 5:
        ahead = model.predict(window_z, actions[:, : window_z.shape[1]])[:, -1:]
        window_z = torch.cat([window_z, ahead], dim=1)
    torch.testing.assert_close(scores.rollout, F.mse_loss(window_z[:, num_context:], target[:, num_context:]))


@pytest.mark.parametrize("error", ["one_step", "rollout"])
def test_gradients_reach_the_target_embeddings(error):
    """No stop-gradient: moving the last picture's embedding alone would lower the prediction error."""
    model, actions = untrained(), torch.randn(2, 2, 6)
    z = torch.randn(2, 3, 10, requires_grad=True)
    getattr(model.score_predictions(z, z, actions, 2), error).backward()
    with torch.no_grad():
        last = model.predict(z[:, :2], actions)[:, 1]
    num_errors = 2 * (2 if error == "one_step" else 1) * 10
    torch.testing.assert_close(z.grad[:, -1], 2 * (z[:, -1] - last).detach() / num_errors, rtol=1e-4, atol=1e-6)


def test_dropout_acts_in_training_only():
    model = untrained(dropout=0.5)
    z, actions = torch.randn(1, 3, 10), torch.randn(1, 3, 6)
    torch.testing.assert_close(model.predict(z, actions), model.predict(z, actions))
    model.train()
    assert not torch.allclose(model.predict(z, actions), model.predict(z, actions))


@pytest.mark.parametrize("kind", ["residual", "lewm"])
def test_every_place_for_dropout_drops(kind):
    torch.manual_seed(0)
    config = PredictorConfig(kind, width=10, depth=1, num_heads=2, dropout=0.5, mlp_width=14)
    predictor = JEPA(JEPAConfig(6, 10, 20, EncoderConfig(image_size=32), config)).predictor.train()
    for parameter in predictor.parameters():
        torch.nn.init.normal_(parameter)
    z, modulation = torch.randn(2, 3, 10), predictor.condition(torch.randn(2, 3, 6))
    places = [(predictor.blocks[0], "dropout")]
    places += [(layer, "p") for layer in predictor.modules() if isinstance(layer, torch.nn.Dropout)]
    assert len(places) == (2 if kind == "residual" else 4)
    rates = [getattr(*place) for place in places]
    for alone in range(len(places)):
        for index, (place, rate) in enumerate(zip(places, rates, strict=True)):
            setattr(*place, rate if index == alone else 0.0)
        assert not torch.allclose(predictor(z, modulation), predictor(z, modulation))


@pytest.mark.parametrize("sizes", [{}, {"head_dim": 12, "mlp_width": 40}])
def test_heads_and_mlp_are_as_wide_as_is_asked(sizes):
    block = untrained(**sizes).predictor.blocks[0]
    assert block.qkv.out_features == 3 * 4 * sizes.get("head_dim", 32 // 4)
    assert block.mlp[0].out_features == sizes.get("mlp_width", 4 * 32)


def test_pictures_are_scaled_to_minus_one_and_one():
    model, seen = untrained(), []
    model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model.encode(torch.from_numpy(np.stack([np.zeros((32, 32, 3)), np.full((32, 32, 3), 255)]).astype(np.uint8)))
    assert (seen[0].min().item(), seen[0].max().item()) == (-1, 1)


@pytest.mark.parametrize("spherical", [False, True])
def test_embeddings_are_what_the_projector_says(spherical):
    torch.manual_seed(0)
    encoder = EncoderConfig(image_size=32, channels=(4, 8))
    model, batch = JEPA(JEPAConfig(6, 10, 20, encoder, spherical=spherical)).eval(), pictures(3, 2)
    torch.nn.init.normal_(model.projector[-1].weight, std=20.0)
    images = batch.flatten(0, 1).permute(0, 3, 1, 2) / 127.5 - 1
    said = model.projector(model.encoder(images)).view(3, 2, 10)
    assert said.abs().max() > 5
    expected = said / said.square().mean(-1, keepdim=True).sqrt() if spherical else said
    torch.testing.assert_close(model.encode(batch), expected)


def test_pooled_features_are_the_same_wherever_a_thing_is():
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(image_size=128, channels=(4, 8, 8, 8), pooled=True)).eval()
    thing = 10 * torch.randn(3, 12, 12)
    pictures = torch.zeros(2, 3, 128, 128)
    pictures[0, :, 32:44, 32:44] = pictures[1, :, 64:76, 48:60] = thing  # moved by whole strides, away from the edges
    with torch.no_grad():
        features = encoder(pictures)
    assert features.shape == (2, encoder.num_features)
    pooled = features[:, -16:]
    torch.testing.assert_close(pooled[0], pooled[1])
    assert (features[0, :-16] - features[1, :-16]).abs().max() > 0.01
    torch.testing.assert_close(pooled[:, 8:], features[:, :-16].view(2, 8, 64).mean(2))
