"""Real-time chunking: weights, guidance, the given prefix, and the policies that continue a chunk."""

import math

import pytest
import torch

from lerobot.common.policies.rtc.action_queue import ActionQueue
from lerobot.common.policies.rtc.configuration_rtc import RTCConfig
from lerobot.common.policies.rtc.modeling_rtc import RTCProcessor, sample_delays
from lerobot.configs.policies import PreTrainedConfig
from tests.policies.act import conftest as act
from tests.policies.pi0 import conftest as pi0
from tests.policies.smolvla import conftest as smolvla
from tests.policies.tiny import batch_of, observation_of


def weights(schedule, start, end, total):
    config = RTCConfig(prefix_attention_schedule=schedule)
    return RTCProcessor(config).get_prefix_weights(start, end, total).tolist()


def test_the_names_of_the_new_layout():
    from lerobot.policies.rtc import ActionQueue as Queue
    from lerobot.policies.rtc import RTCConfig as Config
    from lerobot.policies.rtc.configuration_rtc import RTCConfig as Same
    from lerobot.policies.rtc.modeling_rtc import RTCProcessor as Processor

    from lerobot.configs import RTCAttentionSchedule

    assert (Queue, Config, Same, Processor) == (ActionQueue, RTCConfig, RTCConfig, RTCProcessor)
    assert [s.value for s in RTCAttentionSchedule] == ["ZEROS", "ONES", "LINEAR", "EXP"]


def test_weights_of_every_schedule():
    from lerobot.configs.types import RTCAttentionSchedule as S

    assert weights(S.ZEROS, 2, 6, 8) == [1, 1, 0, 0, 0, 0, 0, 0]
    assert weights(S.ONES, 2, 6, 8) == [1] * 6 + [0, 0]
    assert weights(S.LINEAR, 2, 6, 8) == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0])
    bent = [u * (math.exp(u) - 1) / (math.e - 1) for u in (0.8, 0.6, 0.4, 0.2)]
    assert weights(S.EXP, 2, 6, 8) == pytest.approx([1, 1, *bent, 0, 0])
    assert weights(S.LINEAR, 9, 6, 4) == [1] * 4
    assert weights(S.LINEAR, 1, 9, 4) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert weights(S.LINEAR, 0, 0, 3) == [0, 0, 0]


@pytest.mark.parametrize("field", ["max_guidance_weight", "debug_maxlen"])
def test_weights_that_are_not_positive_are_refused(field):
    with pytest.raises(ValueError, match=field):
        RTCConfig(**{field: 0})


def test_the_guided_velocity_is_the_formula():
    processor = RTCProcessor(RTCConfig(max_guidance_weight=10.0, execution_horizon=3))
    x, v, old = torch.randn(2, 4, 5), torch.randn(2, 4, 5), torch.randn(2, 3, 2)
    t = 0.3
    guided = processor.denoise_step(x, old, 1, t, lambda _: v)
    g = t / (1 - t) * (t**2 + (1 - t) ** 2) / t**2
    error = torch.zeros_like(x)
    error[:, :3, :2] = old
    weight = torch.tensor([1, 2 / 3, 1 / 3, 0])[:, None]
    torch.testing.assert_close(guided, v - g * (error - (x - t * v)) * weight)


def test_at_the_ends_of_time_the_weight_is_the_maximum():
    weight = RTCProcessor(RTCConfig(max_guidance_weight=7.0)).guidance_weight(torch.tensor([1.0, 0.0, 0.5]))
    assert weight.tolist() == [7.0, 7.0, 2.0]


def test_without_an_old_chunk_nothing_changes_and_a_delay_must_be_whole():
    processor, x = RTCProcessor(RTCConfig()), torch.randn(1, 4, 2)
    assert processor.denoise_step(x, None, None, 0.5, lambda x_t: 2 * x_t).equal(2 * x)
    with pytest.raises(ValueError, match="whole number"):
        processor.denoise_step(x, x, 1.5, 0.5, lambda x_t: x_t)


def continue_chunk(module, policy, delay, batch, **kwargs):
    noise = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3))
    old = torch.full((2, 4, 6), 0.7)
    plain = policy.predict_action_chunk(batch, noise=noise)
    return (
        old,
        plain,
        policy.predict_action_chunk(batch, noise=noise, inference_delay=delay, prev_chunk_left_over=old, **kwargs),
    )


@pytest.mark.parametrize("module", [smolvla, pi0], ids=["smolvla", "pi0"])
def test_a_guided_chunk_is_drawn_to_the_old_one_where_it_will_be_played(module):
    steps = {"num_steps" if module is smolvla else "num_inference_steps": 10}
    policy = module.tiny_policy(rtc_config=RTCConfig(), **steps)
    batch = module.tiny_batch(policy.config)
    old, plain, guided = continue_chunk(module, policy, 2, batch, execution_horizon=3)
    assert policy.supports_rtc()
    assert (guided[:, :2] - old[:, :2]).abs().mean() < 0.2 * (plain[:, :2] - old[:, :2]).abs().mean()
    with pytest.raises(AssertionError, match="predict_action_chunk"):
        policy.select_action(batch)


@pytest.mark.parametrize("module", [smolvla, pi0], ids=["smolvla", "pi0"])
def test_what_guidance_did_at_each_step_can_be_looked_at(module):
    steps = {"num_steps" if module is smolvla else "num_inference_steps": 4}
    policy = module.tiny_policy(rtc_config=RTCConfig(debug=True, debug_maxlen=3), **steps)
    batch, old = module.tiny_batch(policy.config), torch.full((2, 4, 6), 0.7)
    policy.predict_action_chunk(batch)  # continues nothing
    assert policy.rtc_processor.is_debug_enabled() and policy.rtc_processor.get_all_debug_steps() == []
    policy.predict_action_chunk(batch, inference_delay=2, prev_chunk_left_over=old, execution_horizon=3)
    kept = policy.rtc_processor.get_all_debug_steps()
    assert [(step.step_idx, step.time) for step in kept] == [(1, 0.75), (2, 0.5), (3, 0.25)]
    last = kept[-1]
    assert (last.inference_delay, last.execution_horizon) == (2, 3) and last.weights.shape == (1, 5, 1)
    velocity = (last.x_t - last.x1_t) / last.time
    torch.testing.assert_close(last.v_t, velocity - last.guidance_weight * last.correction, atol=1e-4, rtol=1e-4)
    told = last.to_dict()
    assert told["x_t_stats"]["shape"] == (2, 5, 32) and told["guidance_weight"] > 0 and "x_t" not in told
    assert last.to_dict(include_tensors=True)["x_t"].equal(last.x_t)
    policy.rtc_processor.reset_tracker()
    assert policy.rtc_processor.get_all_debug_steps() == []


def test_nothing_is_kept_unless_asked_for_and_a_changed_configuration_counts():
    policy = smolvla.tiny_policy()
    assert policy.rtc_processor is None
    policy.config.rtc_config = RTCConfig()
    first = policy.rtc_processor
    assert not first.is_debug_enabled() and policy.rtc_processor is first
    first.track(0.5, x_t=torch.zeros(1))
    assert first.get_all_debug_steps() == []
    policy.config.rtc_config = RTCConfig(debug=True)
    policy.rtc_processor.track(torch.tensor([0.5]), x_t=torch.zeros(1), note="mine")
    policy.rtc_processor.track(0.5, v_t=torch.ones(1))
    (step,) = policy.rtc_processor.get_all_debug_steps()
    assert (
        step.metadata == {"note": "mine"} and step.v_t.equal(torch.ones(1)) and len(policy.rtc_processor.tracker) == 1
    )


@pytest.mark.parametrize("module", [smolvla, pi0], ids=["smolvla", "pi0"])
def test_guidance_runs_only_if_enabled(module):
    policy = module.tiny_policy(rtc_config=RTCConfig(enabled=False))
    _, plain, same = continue_chunk(module, policy, 2, module.tiny_batch(policy.config))
    assert plain.equal(same)


def test_a_smolvla_trained_for_it_begins_with_what_was_played():
    policy = smolvla.tiny_policy(rtc_training_max_delay=3)
    batch = smolvla.tiny_batch(policy.config)
    old, plain, continued = continue_chunk(smolvla, policy, 2, batch)
    assert continued[:, :2].equal(old[:, :2])
    assert not continued[:, 2:].allclose(plain[:, 2:])  # later actions attend the given ones
    assert continue_chunk(smolvla, policy, 5, batch)[2][:, :3].equal(old[:, :3])  # never more than in training


def test_given_actions_reach_the_model_without_noise_and_are_no_part_of_the_loss():
    torch.manual_seed(0)
    policy = smolvla.tiny_policy(rtc_training_max_delay=4, draws_per_sample=2).train()
    batch = {**smolvla.tiny_batch(policy.config), "action_is_pad": torch.zeros(2, 5, dtype=torch.bool)}
    seen = []
    policy.model.velocity = lambda x, t, prefix: seen.append((x, t)) or torch.zeros_like(x)
    noise = torch.randn(4, 5, 32)
    loss, _ = policy(batch, noise=noise)
    x, t = seen[0]
    given = t == 0
    action = torch.nn.functional.pad(batch["action"], (0, 26)).repeat(2, 1, 1)
    assert given.any() and not given.all()
    assert x[given].equal(action[given])
    expected = (noise - action)[..., :6].square()[~given].mean()
    torch.testing.assert_close(loss, expected)


def test_act_learns_to_continue_and_its_loss_leaves_out_what_is_given():
    config = act.config_of(rtc_training_max_delay=3, use_vae=False)
    policy, batch = act.policy_of(config), batch_of(config)
    torch.nn.init.normal_(policy.model.decoder_prefix_proj.weight)
    old = torch.full((1, 4, 6), 0.7)
    with torch.no_grad():
        plain = policy.predict_action_chunk(batch)
        continued = policy.predict_action_chunk(batch, inference_delay=2, prev_chunk_left_over=old)
    assert continued[:, :2].eq(0.7).all() and not continued[:, 2:].allclose(plain[:, 2:])
    policy.train()
    torch.manual_seed(1)
    given = sample_delays(2, 3, 5, "cpu")
    torch.manual_seed(1)
    batch["action"].requires_grad_()
    predicted = policy.model(batch, batch["action"].detach(), given)[0].detach()
    loss, _ = policy(batch)
    valid = ~(given | batch["action_is_pad"])
    assert given.any()
    torch.testing.assert_close(loss, (predicted - batch["action"]).abs()[valid].mean())


def test_act_without_the_flag_has_no_further_weights_and_draws():
    policy = act.policy_of(act.config_of())
    assert not policy.supports_rtc() and not any("prefix" in name for name in policy.state_dict())


def test_a_trained_act_that_learns_to_continue_begins_as_what_it_was(tmp_path):
    plain = act.policy_of(act.config_of())
    plain.save_pretrained(tmp_path)
    learning = type(plain).from_pretrained(tmp_path, config=act.config_of(rtc_training_max_delay=3))
    batch = observation_of(plain.config)
    chunk = plain.predict_action_chunk(batch)
    assert chunk.equal(learning.predict_action_chunk(batch))
    continued = learning.predict_action_chunk(batch, inference_delay=2, prev_chunk_left_over=chunk + 1)
    torch.testing.assert_close(continued, torch.cat([chunk[:, :2] + 1, chunk[:, 2:]], 1))


@pytest.mark.parametrize("make", [act.config_of, smolvla.tiny_config])
def test_a_delay_as_long_as_the_chunk_is_refused(make):
    with pytest.raises(ValueError, match="0 to 4"):
        make(rtc_training_max_delay=5)


def test_delays_are_spread_over_all_values():
    torch.manual_seed(0)
    given = sample_delays(4000, 3, 5, "cpu")
    counts = torch.bincount(given.sum(1), minlength=5)
    assert counts[4] == 0 and (counts[:4] > 850).all()
    assert (given[:, 1:] <= given[:, :-1]).all()


def test_the_configuration_survives_its_file(tmp_path):
    config = smolvla.tiny_config(rtc_config=RTCConfig(execution_horizon=7))
    config.save_pretrained(tmp_path)
    assert PreTrainedConfig.from_pretrained(tmp_path).rtc_config == RTCConfig(execution_horizon=7)
    overrides = ["--rtc_config.prefix_attention_schedule=EXP"]
    loaded = PreTrainedConfig.from_pretrained(tmp_path, cli_overrides=overrides)
    assert loaded.rtc_config.prefix_attention_schedule.value == "EXP"


def test_the_queue_drops_no_more_than_was_taken():
    queue, chunk = ActionQueue(RTCConfig()), torch.arange(10.0)[:, None]
    assert queue.get() is None and queue.get_left_over() is None
    queue.merge(-chunk, chunk, real_delay=3)
    assert queue.get_action_index() == 0 and queue.qsize() == 7
    before = queue.get_action_index()
    assert [queue.get().item() for _ in range(2)] == [3, 4]
    assert queue.get_left_over()[:, 0].tolist() == [-5, -6, -7, -8, -9]
    queue.merge(-chunk, chunk, real_delay=6, action_index_before_inference=before)
    assert queue.get().item() == 2


def test_without_rtc_chunks_are_appended():
    queue, chunk = ActionQueue(RTCConfig(enabled=False)), torch.arange(3.0)[:, None]
    queue.merge(chunk, chunk, 0)
    queue.get()
    queue.merge(chunk, chunk, 2)
    assert [queue.get().item() for _ in range(5)] == [1, 2, 0, 1, 2] and queue.empty()


def test_the_latency_tracker_of_the_new_layout():
    from lerobot.policies.rtc.latency_tracker import LatencyTracker

    tracker = LatencyTracker(maxlen=3)
    assert (tracker.max(), tracker.p95(), len(tracker)) == (0, 0, 0)
    for seconds in (0.5, 0.1, 0.2, 0.3, -1.0):
        tracker.add(seconds)
    assert len(tracker) == 3 and tracker.max() == tracker.percentile(1) == 0.5
    found = [tracker.percentile(q) for q in (0, 0.25, 0.5)] + [tracker.p95()]
    assert found == pytest.approx([0.1, 0.15, 0.2, 0.29])
    tracker.reset()
    assert tracker.max() == 0 and tracker.percentile(0.5) == 0
