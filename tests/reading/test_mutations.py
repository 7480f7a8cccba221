"""Altered pickles end in a value or in the one error, and run nothing: Python's audit hook sees no import, call or file."""

import pickle
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import pickle, random, sys
import cloudpickle, numpy as np, torch as th
from collections import OrderedDict, deque
from gymnasium import spaces
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.policies import ActorCriticPolicy
import sb3_trpo
from sb3_trpo.reading.pickles import NotRebuiltError
from sb3_trpo.reading.rebuild import load_pickle
from tests.reading.payloads import Evil
import os

space = spaces.Dict({"a": spaces.Box(-1.0, 1.0, (2,)), "b": spaces.Discrete(3)})
space.seed(1)
values = [
    [space, deque([1.5], 3), OrderedDict(a=np.float32(1)), FloatSchedule(0.1), ActorCriticPolicy, np.arange(4.0), th.ones(3)],
    lambda progress: progress,
    Evil(os.system, "true"),
    Evil(eval, "1", state={"a": Evil(exec, "1")}),
]
contents = [cloudpickle.dumps(value, protocol) for value in values for protocol in (2, 4, 5)]
for content in contents:
    try:
        load_pickle(content)  # imports what torch imports on its first use
    except NotRebuiltError:
        pass

watched, seen = False, []
EVENTS = {"import", "exec", "compile", "open", "os.system", "subprocess.Popen", "os.exec", "socket.connect"}
def watch(event, args):
    if watched and event in EVENTS:
        seen.append((event, args))
sys.addaudithook(watch)

draw, outcomes = random.Random(1), {"value": 0, "refused": 0}
for _ in range(1_500):
    content = bytearray(draw.choice(contents))
    for _ in range(draw.choice([0, 1, 1, 2, 5])):
        where = draw.randrange(len(content))
        kind = draw.randrange(4)
        if kind == 0:
            content[where] = draw.randrange(256)
        elif kind == 1:
            del content[where : where + draw.randrange(1, 5)]
        elif kind == 2:
            content[where:where] = draw.choice([b"R", b"b", b"0", b"(t", b"\\x81", b"\\x93", b"cos\\nsystem\\n", b"2", b"."])
        else:
            other = draw.choice(contents)
            start = draw.randrange(len(other))
            content[where:where] = other[start : start + draw.randrange(1, 40)]
        if not content:
            content = bytearray(b".")
    watched = True
    try:
        load_pickle(bytes(content))
        outcomes["value"] += 1
    except NotRebuiltError:
        outcomes["refused"] += 1
    finally:
        watched = False
assert not seen, seen[:5]
assert min(outcomes.values()) > 50, outcomes
watched = True
pickle.loads(contents[-6])  # the hook works
watched = False
assert seen
print("fine")
"""


def test_altered_pickles_run_nothing() -> None:
    assert pickle.HIGHEST_PROTOCOL >= 5
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout == "fine\n", done.stderr
