"""Train PPO on a cart-pole: all of it compiled, for several seeds at once."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

from tests.scripts import cart_pole

SEEDS = 8
UPDATES = 30
ENVIRONMENTS = 16
STEPS = 32
EPOCHS = 4
MINIBATCHES = 4
LEARNING_RATE = 1e-2


class ActorCritic(nn.Module):
    """Two hidden layers with LayerNorm for the policy, and for the value."""

    @nn.compact
    def __call__(self, x):
        actor = critic = x
        for _ in range(2):
            actor = nn.tanh(nn.LayerNorm()(nn.Dense(32)(actor)))
            critic = nn.tanh(nn.LayerNorm()(nn.Dense(32)(critic)))
        small = nn.initializers.orthogonal(0.01)
        logits = nn.Dense(2, kernel_init=small)(actor)
        return logits, nn.Dense(1)(critic).squeeze(-1)


def log_probability(logits, action):
    """Return the logarithm of the action's probability."""
    return -optax.softmax_cross_entropy_with_integer_labels(logits, action)


def get_advantages(done, value, last_value):
    """Return generalized advantage estimates for rewards of 1 a step."""

    def step(carry, now):
        advantage, next_value = carry
        done, value = now
        alive = 1.0 - done
        delta = 1 + 0.99 * next_value * alive - value
        advantage = delta + 0.99 * 0.95 * alive * advantage
        return (advantage, value), advantage

    start = jnp.zeros_like(last_value), last_value
    return jax.lax.scan(step, start, (done, value), reverse=True)[1]


def make_train():
    """Return the function that trains for one seed."""
    network = ActorCritic()

    def loss_fn(params, batch):
        logits, value = network.apply(params, batch["observation"])
        now = log_probability(logits, batch["action"])
        ratio = jnp.exp(now - batch["log_probability"])
        advantage = jax.nn.standardize(batch["advantage"])
        clipped = jnp.clip(ratio, 0.8, 1.2) * advantage
        actor_loss = -jnp.minimum(ratio * advantage, clipped).mean()
        value_loss = jnp.mean((value - batch["target"]) ** 2)
        entropy = optax.softmax_cross_entropy(logits, nn.softmax(logits)).mean()
        return actor_loss + 0.005 * value_loss - 0.01 * entropy

    def schedule(count):
        return LEARNING_RATE * (1 - count / (UPDATES * EPOCHS * MINIBATCHES))

    def train(key):
        key, init_key, reset_key = jax.random.split(key, 3)
        reset_keys = jax.random.split(reset_key, ENVIRONMENTS)
        envs = jax.vmap(cart_pole.reset)(reset_keys)
        params = network.init(init_key, envs)
        tx = optax.chain(
            optax.clip_by_global_norm(0.5), optax.adam(schedule, eps=1e-5)
        )
        state = TrainState.create(apply_fn=network.apply, params=params, tx=tx)

        def collect(carry, key):
            state, envs = carry
            action_key, env_key = jax.random.split(key)
            logits, value = state.apply_fn(state.params, envs)
            action = jax.random.categorical(action_key, logits)
            keys = jax.random.split(env_key, ENVIRONMENTS)
            after, done = jax.vmap(cart_pole.step)(keys, envs, action)
            record = {
                "observation": envs,
                "action": action,
                "log_probability": log_probability(logits, action),
                "value": value,
                "done": done,
            }
            return (state, after), record

        def update_minibatch(state, batch):
            grads = jax.grad(loss_fn)(state.params, batch)
            return state.apply_gradients(grads=grads), None

        def update_epoch(carry, key):
            state, batch = carry
            order = jax.random.permutation(key, ENVIRONMENTS * STEPS)
            minibatches = jax.tree.map(
                lambda x: x[order].reshape(MINIBATCHES, -1, *x.shape[1:]), batch
            )
            state, _ = jax.lax.scan(update_minibatch, state, minibatches)
            return (state, batch), None

        def update(carry, key):
            keys = jax.random.split(key, STEPS + EPOCHS)
            (state, envs), batch = jax.lax.scan(collect, carry, keys[:STEPS])
            _, last_value = state.apply_fn(state.params, envs)
            done, value = batch.pop("done"), batch.pop("value")
            advantage = get_advantages(done, value, last_value)
            batch |= {"advantage": advantage, "target": advantage + value}
            batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
            (state, _), _ = jax.lax.scan(
                update_epoch, (state, batch), keys[STEPS:]
            )
            return (state, envs), done.mean()

        keys = jax.random.split(key, UPDATES)
        return jax.lax.scan(update, (state, envs), keys)[1]

    return train


def main():
    """Train for several seeds; return how often the pole fell, by update."""
    keys = jax.random.split(jax.random.key(0), SEEDS)
    falls = jax.jit(jax.vmap(make_train()))(keys)
    return falls.mean(0).tolist()


if __name__ == "__main__":
    print(main())
