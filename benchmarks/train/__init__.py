"""The training program, `python -m benchmarks.train`.

- `command`: what is asked for, checked; `settings`, `presets`: what numbers
  depend on;
- `processes`: several processes on this machine;
- `networks`, `optimizers`, `schedules`, `sources`: what can be asked for;
- `layout`: what lies on which device;
- `batches`: the input;
- `steps`: what is compiled;
- `run`: the epochs; `records`, `events`: what is written down of them;
- `checkpoints`: what a run goes on from; `seals`: whether it is what was saved;
- `folder`: the output folder.
"""
