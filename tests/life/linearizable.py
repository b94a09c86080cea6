"""Whether what clients saw of one root token and its descendants fits some order of their calls.

The model: a token is a counter that never goes below zero and a flag; it is dead when it or one above it is revoked.
The search is Wing and Gong's: take any call that no other one ended before, let the model do it, go on; a state with the
same calls done is looked at once.
"""

import threading
import time
from dataclasses import dataclass, field

ALLOWED, EXHAUSTED, FEWER, REVOKED, UNKNOWN = "ALLOWED", "TOKEN_USES_EXHAUSTED", "USES_NOT_ALLOWED", "TOKEN_REVOKED", "?"
SPEND, MOVE, REVOKE, CHECK = "spend", "move", "revoke", "check"
NEVER = float("inf")


@dataclass
class Call:
    """What one client asked and was told, with the moments it began and ended, on one monotonic clock.

    `token`: a path, the root first, as ("root", "child"). `answer`: a reason; UNKNOWN if nothing came back, so that it
    may have happened or not, even later. `child` and `uses`: of a move. `left`: what a check saw.
    """

    what: str
    token: tuple
    began: float
    ended: float = NEVER
    answer: str = UNKNOWN
    child: tuple = ()
    uses: int = 1
    left: int | None = None


@dataclass
class History:
    """Calls of several threads, as they are recorded."""

    uses: int
    calls: list = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def record(self, what, token, do, **more):
        """Runs `do`, which answers as Call has it: a reason, or a reason and what is left."""
        call = Call(what, token, time.monotonic_ns(), **more)
        with self.lock:
            self.calls.append(call)
        answer = do()
        call.ended = time.monotonic_ns()
        call.answer, call.left = answer if isinstance(answer, tuple) else (answer, None)
        if call.answer == UNKNOWN:
            call.ended = NEVER
        return call


def after(state, call):
    """The state that follows when the model does this call; nothing if the model answers otherwise.

    A state holds (token, left, is revoked), in the order of tokens. A call without an answer may have happened.
    """
    tokens = {token: (left, is_revoked) for token, left, is_revoked in state}
    if call.token not in tokens:
        return None
    left, is_revoked = tokens[call.token]
    above = [call.token[:length] for length in range(1, len(call.token) + 1)]
    is_dead = any(tokens[token][1] for token in above)

    if call.what == REVOKE:
        answer, changed = ALLOWED, {call.token: (left, True)}
    elif is_dead:
        answer, changed = REVOKED, {}
    elif call.what == CHECK:
        answer, changed = (ALLOWED if left else EXHAUSTED), {}
    elif left == 0:
        answer, changed = EXHAUSTED, {}
    elif left < call.uses:
        answer, changed = FEWER, {}
    else:
        answer, changed = ALLOWED, {call.token: (left - call.uses, is_revoked)}
        # Nobody has the child of a move that was not answered.
        if call.what == MOVE and call.answer != UNKNOWN:
            changed[call.child] = (call.uses, False)

    if call.answer != UNKNOWN and (answer != call.answer or call.left not in (None, left)):
        return None
    return tuple(sorted((token, *values) for token, values in (tokens | changed).items()))


def order(history):
    """An order of the calls that the model agrees with, or nothing when there is none.

    A call without an answer need not be in it.
    """
    calls = sorted(history.calls, key=lambda call: call.began)
    everything = (1 << len(calls)) - 1
    must = sum(1 << index for index, call in enumerate(calls) if call.answer != UNKNOWN)
    start = (((("root",), history.uses, False),), 0)
    seen, stack = {start}, [(*start, ())]
    while stack:
        state, done, path = stack.pop()
        if done & must == must:
            return [calls[index] for index in path]
        for index, following in steps(calls, state, everything & ~done):
            key = (following, done | 1 << index)
            if key not in seen:
                seen.add(key)
                stack.append((*key, (*path, index)))
    return None


def steps(calls, state, open_calls):
    """Calls that began before every other one still to be placed ended, each with the state after it."""
    indexes = [index for index in range(len(calls)) if open_calls >> index & 1]
    first_end = min(calls[index].ended for index in indexes)
    known, unknown = [], {}
    for index in indexes:
        if calls[index].began > first_end:
            break
        following = after(state, calls[index])
        if calls[index].answer == UNKNOWN:
            # Of those that do the same one is enough: none of them ever ends. One that does nothing is left out.
            if following not in (None, state):
                unknown.setdefault(following, index)
        elif following is not None:
            known.append((index, following))
    return [(index, following) for following, index in unknown.items()] + known
