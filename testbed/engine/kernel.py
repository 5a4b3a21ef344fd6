"""The discrete-event engine, request by request (numba): processor-sharing pods under CFS quotas, one clock.

A request runs the linear program of its endpoint (`testbed.engine.program.compile_program`). A pod shares its
cores equally among its runnable jobs, at most one core per job, and stops for the rest of each 0.1 s period
when its quota is used up. While the number of jobs is constant, the work done over any stretch of time is
known in closed form. So a pod has exactly one pending event, its next completion, and an idle pod has none.

Every random number is a hash of (seed, stream, user, request, place in the program): with one seed, two
policies see the same users ask for the same things. `advance` is the only way to move time, and splitting an
advance changes nothing.

Tables refer to each other by index; -1 means none. Numba compiles the names below in as constants.

Source: CFS bandwidth control, Linux kernel documentation (scheduler/sched-bwc).
Source: the pairing heap, Fredman et al. 1986.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.core import cgutils
from numba.extending import intrinsic

PERIOD = 0.1
"""Seconds of a CFS bandwidth period."""
INF = np.inf
NO_BOUND = 1 << 30
"""More requests than a pod ever serves at once."""

ENTER, CPU, EXIT, BRANCH, FORK, JOIN, END, HOP = range(8)
"""Operations of a program; `testbed.engine.program.Program` says what each one's arguments mean."""
FREE, STARTING, READY, DRAINING, WIRE = range(5)
"""States of a pod; a `FREE` slot of the table holds no pod, and `WIRE` is the network between them."""
WIRE_POD = 0
"""Slot of the network, in which any number of calls travel at full speed, where the program has a `HOP`."""
RUNNABLE, ON_CPU, IN_QUEUE, AT_JOIN, ON_WIRE = range(5)
"""States of a task: on the stack of those to run, at work in a pod, queued at a pod, awaiting branches, on
its way."""
RANDOM, ROUND_ROBIN, LEAST_REQUEST, TWO_CHOICES = range(4)
BALANCING = ("random", "round_robin", "least_request", "two_choices")
"""Names of the kinds of load balancing, in the order of their numbers."""
DETERMINISTIC, EXPONENTIAL = range(2)
DEMAND = ("deterministic", "exponential")
"""Names of the distributions of a visit's CPU time, in the order of their numbers."""
OK, GROW, BROKEN = range(3)
"""How an `advance` ends: done, the tables must grow first, a table overflowed."""
TIMER_USER, TIMER_POD = range(2)
"""Kinds of timers: a user has finished thinking, a pod has finished booting."""
(
    EVENT_NONE,
    EVENT_COMPLETION,
    EVENT_THINK,
    EVENT_TIMER,
    EVENT_CHANGE,
    EVENT_ARRIVAL,
    EVENT_INJECTED,
    EVENT_TIMEOUT,
) = range(8)
"""Sources of events; `EVENT_TIMEOUT + i` is the ring of time-out i."""

STREAM_TASK, STREAM_DEMAND = 1, 2
STREAM_BOOT, STREAM_START, STREAM_ARRIVAL, STREAM_THINK = 4, 5, 6, 7
"""Streams of random numbers: the first word of a number's key after the seed."""
FROM_ARRIVAL, FROM_INJECTED = 1, 2
"""Last word of the key of a request that no user makes, but the open loop or the gateway."""
FIRST_ATTEMPT = 0
"""Word of a request's first attempt; that of a retry is its number."""
FOLLOWING_REQUEST = 77
"""Word that leads from a request's key to that of the next request of the same scenario."""
SECOND_CHOICE = 1
"""Word that leads from the first of two chosen pods to the second."""
FIRST_ARRIVAL = 1 << 40
"""Number of the arrival before the first of the open loop, beyond all others."""
HOP_POWER = 1.25
"""The time of a hop is an exponential draw to this power (Weibull, shape 0.8): short mostly, seldom long."""
HOP_SCALE = 0.8826101210566699
"""1 / Gamma(1 + HOP_POWER), so that the mean is as given."""
BOOT_PHASE = 1 << 32
"""Added to the number of a boot: the draw of where in a CFS period the pod begins."""


def record(**names: str) -> np.dtype[Any]:
    """A C struct: field type -> names."""
    return np.dtype([(name, kind) for kind, text in names.items() for name in text.split()], align=True)


POD = record(
    f8="time attained budget period_end quota cores next cpu idle created ready_at warm_until"
    " slowdown wakeup",
    i8="uid",
    i4="service state jobs heap_at root in_flight active cap wait_head wait_tail list_at",
)
TASK = record(
    f8="finish start",
    u8="key base",
    i8="injected",
    i4="pc depth state alive endpoint user scenario at attempt retry"
    " parent pending first left right child next prev free_next",
)
FRAME = record(f8="start", i8="token", i4="pod op retries")
OP = record(f8="value", i4="op arg0 arg1 exit_pc timeout ignore retries")
SERVICE = record(f8="seconds cpu_gone", i8="in_flight finished failed", i4="ready turn")
EDGE = record(i8="started done failed")
ENDPOINT = record(f8="seconds slo", i8="offered done failed slow", i4="start")
TIMER = record(f8="time", i8="order uid", i4="kind who")
TIMEOUT = record(f8="time", i8="token", i4="task depth")
THINK = record(f8="time", i4="user")
USER = record(i8="requests", i4="active")
CHANGE = record(f8="time rate", i4="users mix")
ARRIVAL = record(f8="time", i8="id", i4="endpoint")
COMPLETION = record(f8="time start", i8="id", i4="endpoint ok")
CLOCK = record(
    f8="now rate arrival_need arrival_next think_low think_high spread",
    u8="seed",
    i8="timer_order think_head think_tail arrivals token events in_flight injected_at",
    i4="heap timers free_task free_tasks change users mix stack completions balancing demand broken",
)


class State(NamedTuple):
    """All of the engine's memory; arrays are replaced by larger copies when they fill."""

    clock: Any
    ops: Any
    branches: Any
    timeouts: Any
    endpoints: Any
    services: Any
    edges: Any
    pods: Any
    tasks: Any
    frames: Any
    ready: Any
    heap: Any
    heap_keys: Any
    timers: Any
    think: Any
    rings: Any
    ring_ends: Any
    users: Any
    changes: Any
    mix_probability: Any
    mix_alias: Any
    scenario_at: Any
    scenario_requests: Any
    stack: Any
    completions: Any
    bounds: Any
    bucket_start: Any
    service_buckets: Any
    endpoint_buckets: Any


@intrinsic
def borrowed(typing_context: Any, array: Any) -> Any:
    """The same array without a reference count."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, values[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        return view._getvalue()

    return array(array), generate


inlined = njit(cache=True, forceinline=True)
"""The compiler sees the hot path as one function: handing `State` over at each call took most of the time."""


# ---------------------------------------------------------------------------------------------------- hashing
@inlined
def mix(a, b):
    """A 64-bit hash of two words. Source: the finaliser of SplitMix64 (Steele et al. 2014)."""
    z = a + (b + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@inlined
def unit(h):
    """A hash as a float in (0, 1)."""
    return (np.float64(h >> np.uint64(11)) + 0.5) * 1.1102230246251565e-16


@inlined
def keyed(seed, stream, a, b):
    """The stream's hash for the pair (a, b)."""
    return mix(mix(mix(seed, np.uint64(stream)), np.uint64(a)), np.uint64(b))


@njit(cache=True)
def draw(seed, stream, a, b):
    """The stream's number in (0, 1) for the pair (a, b), for Python."""
    return unit(keyed(np.uint64(seed), stream, a, b))


# ----------------------------------------------------------------------------------- the heap of pods' events
@inlined
def heap_place(st, at, pod, key):
    """Put a pod at a place of the heap."""
    st.heap[at] = pod
    st.heap_keys[at] = key
    st.pods[pod].heap_at = at


@inlined
def heap_up(st, at, pod, key):
    """Move a pod from `at` towards the top until its parent's key isn't larger."""
    while at > 0:
        above = (at - 1) >> 2
        if st.heap_keys[above] <= key:
            break
        heap_place(st, at, st.heap[above], st.heap_keys[above])
        at = above
    heap_place(st, at, pod, key)


@inlined
def heap_down(st, at, pod, key):
    """Move a pod from `at` towards the bottom until no child's key is smaller."""
    size = st.clock[0].heap
    while True:
        first = 4 * at + 1
        if first >= size:
            break
        best = first
        for other in range(first + 1, min(first + 4, size)):
            if st.heap_keys[other] < st.heap_keys[best]:
                best = other
        if st.heap_keys[best] >= key:
            break
        heap_place(st, at, st.heap[best], st.heap_keys[best])
        at = best
    heap_place(st, at, pod, key)


@inlined
def heap_set(st, pod, key):
    """Put a pod into the heap, or give it another key."""
    at = st.pods[pod].heap_at
    if at < 0:
        at = st.clock[0].heap
        st.clock[0].heap = at + 1
        heap_up(st, at, pod, key)
    elif key < st.heap_keys[at]:
        heap_up(st, at, pod, key)
    else:
        heap_down(st, at, pod, key)


@inlined
def heap_remove(st, pod):
    """Take a pod out of the heap if it is there."""
    at = st.pods[pod].heap_at
    if at < 0:
        return
    size = st.clock[0].heap - 1
    st.clock[0].heap = size
    st.pods[pod].heap_at = -1
    if at < size:
        moved, key = st.heap[size], st.heap_keys[size]
        if at > 0 and st.heap_keys[(at - 1) >> 2] > key:
            heap_up(st, at, moved, key)
        else:
            heap_down(st, at, moved, key)


# --------------------------------------------------------------------- a pod's jobs: a pairing heap by finish
@inlined
def meld(tasks, a, b):
    """The root of two pairing heaps made one; -1 is an empty heap."""
    if a < 0:
        return b
    if b < 0:
        return a
    if tasks[b].finish < tasks[a].finish:
        a, b = b, a
    first = tasks[a].child
    tasks[b].prev = a
    tasks[b].next = first
    if first >= 0:
        tasks[first].prev = b
    tasks[a].child = b
    return a


@inlined
def merge_children(tasks, node):
    """Two-pass merge of the children of `node`; returns the new root."""
    current = tasks[node].child
    tasks[node].child = -1
    paired = -1
    while current >= 0:
        a = current
        b = tasks[a].next
        current = tasks[b].next if b >= 0 else -1
        tasks[a].next = -1
        tasks[a].prev = -1
        if b >= 0:
            tasks[b].next = -1
            tasks[b].prev = -1
        merged = meld(tasks, a, b)
        tasks[merged].next = paired
        paired = merged
    root = -1
    while paired >= 0:
        following = tasks[paired].next
        tasks[paired].next = -1
        tasks[paired].prev = -1
        root = meld(tasks, root, paired)
        paired = following
    return root


@njit(cache=True)
def jobs_remove(tasks, root, node):
    """Remove `node` from the heap at `root`; returns the new root."""
    if node == root:
        return merge_children(tasks, node)
    prev, following = tasks[node].prev, tasks[node].next
    if tasks[prev].child == node:
        tasks[prev].child = following
    else:
        tasks[prev].next = following
    if following >= 0:
        tasks[following].prev = prev
    tasks[node].next = -1
    tasks[node].prev = -1
    return meld(tasks, root, merge_children(tasks, node))


# ---------------------------------------------------------------------------------- processor sharing and CFS
@inlined
def pod_advance(pod, now):
    """Bring a pod's attained service, CPU counter and quota up to `now`."""
    if pod.jobs == 0:
        if now >= pod.period_end:
            pod.period_end += (np.floor((now - pod.period_end) / PERIOD) + 1.0) * PERIOD
            pod.budget = pod.quota
        pod.time = now
        return
    if now <= pod.time:
        return
    rate = min(np.float64(pod.jobs), pod.cores)
    if now <= pod.period_end:
        work = min(pod.budget, rate * (now - pod.time))
        pod.budget -= work
    else:
        work = min(pod.budget, rate * (pod.period_end - pod.time))
        whole = np.floor((now - pod.period_end) / PERIOD)
        rest = max(now - pod.period_end - whole * PERIOD, 0.0)
        last = min(pod.quota, rate * rest)
        work += whole * min(pod.quota, rate * PERIOD) + last
        pod.budget = pod.quota - last
        pod.period_end += (whole + 1.0) * PERIOD
    pod.attained += work / pod.jobs
    pod.cpu += work
    pod.time = now


@inlined
def pod_work(pod, now):
    """CPU-seconds that a pod has done by `now`; the pod isn't changed."""
    if pod.jobs == 0 or now <= pod.time:
        return pod.cpu
    rate = min(np.float64(pod.jobs), pod.cores)
    if now <= pod.period_end:
        return pod.cpu + min(pod.budget, rate * (now - pod.time))
    whole = np.floor((now - pod.period_end) / PERIOD)
    rest = max(now - pod.period_end - whole * PERIOD, 0.0)
    first = min(pod.budget, rate * (pod.period_end - pod.time))
    return pod.cpu + first + whole * min(pod.quota, rate * PERIOD) + min(pod.quota, rate * rest)


@inlined
def pod_schedule(st, index):
    """Set the pod's event to its next completion."""
    pod = st.pods[index]
    if pod.jobs == 0:
        pod.attained = 0.0
        heap_remove(st, index)
        return
    rate = min(np.float64(pod.jobs), pod.cores)
    work = max((st.tasks[pod.root].finish - pod.attained) * pod.jobs, 0.0)
    first = min(pod.budget, rate * (pod.period_end - pod.time))
    if work <= first:
        moment = pod.time + work / rate
    else:
        work -= first
        quota = min(pod.quota, rate * PERIOD)
        whole = max(np.ceil(work / quota) - 1.0, 0.0)
        moment = pod.period_end + whole * PERIOD + (work - whole * quota) / rate
    pod.next = moment
    heap_set(st, index, moment)


@inlined
def job_start(st, task, index, work, now):
    """Give a task `work` CPU-seconds to do in a pod, more where it is warming up or has to wake up."""
    pod = st.pods[index]
    pod_advance(pod, now)
    if pod.jobs == 0:
        work *= pod.wakeup
    if now < pod.warm_until:
        work *= pod.slowdown
    node = st.tasks[task]
    node.finish = pod.attained + work
    node.child = -1
    node.next = -1
    node.prev = -1
    node.state = ON_CPU
    pod.jobs += 1
    pod.root = meld(st.tasks, pod.root, task)
    pod_schedule(st, index)


@njit(cache=True)
def job_cancel(st, task, index, now):
    """Take a task off a pod's CPU."""
    pod = st.pods[index]
    pod_advance(pod, now)
    pod.root = jobs_remove(st.tasks, pod.root, task)
    pod.jobs -= 1
    pod_schedule(st, index)


# ------------------------------------------------------------------------------------------- small containers
@njit(cache=True)
def timer_add(st, moment, kind, who, uid):
    """Set a timer of this kind for a user or a pod."""
    clock = st.clock[0]
    at = clock.timers
    if at >= len(st.timers):
        clock.broken = 1
        return
    clock.timers = at + 1
    order = clock.timer_order
    clock.timer_order = order + 1
    while at > 0:
        above = (at - 1) >> 1
        if st.timers[above].time <= moment:
            break
        st.timers[at] = st.timers[above]
        at = above
    slot = st.timers[at]
    slot.time = moment
    slot.order = order
    slot.kind = kind
    slot.who = who
    slot.uid = uid


@inlined
def timer_before(a, b):
    """True where timer a is due before b; of simultaneous ones the older comes first."""
    return a.time < b.time or (a.time == b.time and a.order < b.order)


@njit(cache=True)
def timer_drop(st):
    """Remove the earliest timer."""
    clock = st.clock[0]
    size = clock.timers - 1
    clock.timers = size
    moved = st.timers[size]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and timer_before(st.timers[below + 1], st.timers[below]):
            below += 1
        if not timer_before(st.timers[below], moved):
            break
        st.timers[at] = st.timers[below]
        at = below
    if size > 0:
        st.timers[at] = moved


@inlined
def task_new(st):
    """Index of a task from the free list, its fields reset."""
    clock = st.clock[0]
    index = clock.free_task
    if index < 0:
        clock.broken = 1
        return 0
    task = st.tasks[index]
    clock.free_task = task.free_next
    clock.free_tasks -= 1
    task.alive = 1
    task.depth = 0
    task.attempt = FIRST_ATTEMPT
    task.retry = -1
    task.parent = -1
    task.pending = 0
    task.first = -1
    task.injected = -1
    return index


@inlined
def task_free(st, index):
    """Give a task back to the free list."""
    task = st.tasks[index]
    task.alive = 0
    task.free_next = st.clock[0].free_task
    st.clock[0].free_task = index
    st.clock[0].free_tasks += 1


@inlined
def to_run(st, task):
    """Put a task on the stack of those that can run now."""
    clock = st.clock[0]
    if clock.stack >= len(st.stack):
        clock.broken = 1
        return
    st.stack[clock.stack] = task
    clock.stack += 1


@inlined
def bucket_of(st, seconds):
    """Index of the histogram bucket: a table by whole milliseconds says where to start looking."""
    at = st.bucket_start[min(np.int64(seconds * 1000.0), len(st.bucket_start) - 1)]
    while at < len(st.bounds) and seconds > st.bounds[at]:
        at += 1
    return at


# --------------------------------------------------------------------------------------------------- pod life
@njit(cache=True)
def pod_free(st, index, now):
    """A pod ends: its CPU time goes to its service, its slot is free again."""
    pod = st.pods[index]
    service = st.services[pod.service]
    service.cpu_gone += pod.cpu + pod.idle * (now - pod.created)
    pod.state = FREE
    heap_remove(st, index)


@njit(cache=True)
def pod_ready(st, index):
    """A pod may be given requests from now on."""
    pod = st.pods[index]
    service = st.services[pod.service]
    pod.state = READY
    pod.list_at = service.ready
    st.ready[pod.service, service.ready] = index
    service.ready += 1


@njit(cache=True)
def pod_unlist(st, index):
    """Take a ready pod out of its service's list, keeping the order of the others."""
    pod = st.pods[index]
    service = st.services[pod.service]
    for at in range(pod.list_at, service.ready - 1):
        moved = st.ready[pod.service, at + 1]
        st.ready[pod.service, at] = moved
        st.pods[moved].list_at = at
    service.ready -= 1


@njit(cache=True)
def pod_remove(st, index, now):
    """Delete a pod: a starting one goes at once, a ready one finishes its requests first."""
    pod = st.pods[index]
    if pod.state == READY:
        pod_unlist(st, index)
    if pod.in_flight == 0:
        pod_free(st, index, now)
    else:
        pod.state = DRAINING


@inlined
def choose_pod(st, service_index, key):
    """A ready pod of the service, by the kind of load balancing; -1 where none is ready."""
    service = st.services[service_index]
    count = service.ready
    if count == 0:
        return -1
    if count == 1:
        return st.ready[service_index, 0]
    mode = st.clock[0].balancing
    if mode == RANDOM:
        return st.ready[service_index, np.int64(unit(key) * count)]
    if mode == TWO_CHOICES:
        return choose_of_two(st, service_index, count, key)
    service.turn = (service.turn + 1) % count
    if mode == ROUND_ROBIN:
        return st.ready[service_index, service.turn]
    return choose_least_busy(st, service_index, count)


@inlined
def choose_of_two(st, service_index, count, key):
    """The one of two random pods that has fewer requests in flight."""
    a = np.int64(unit(key) * count)
    b = np.int64(unit(mix(key, np.uint64(SECOND_CHOICE))) * (count - 1))
    if b >= a:
        b += 1
    one, other = st.ready[service_index, a], st.ready[service_index, b]
    return one if st.pods[one].in_flight <= st.pods[other].in_flight else other


@inlined
def choose_least_busy(st, service_index, count):
    """The pod with the fewest requests in flight; among equals the first from the service's turn on."""
    turn = st.services[service_index].turn
    best, fewest = -1, NO_BOUND
    for step in range(count):
        at = turn + step
        if at >= count:
            at -= count
        candidate = st.ready[service_index, at]
        in_flight = st.pods[candidate].in_flight
        if in_flight < fewest:
            best, fewest = candidate, in_flight
            if in_flight == 0:
                break
    return best


# ---------------------------------------------------------------------------------------- requests and visits
@inlined
def visit_end(st, task_index, ok, now):
    """Pop the top frame: counters, the pod's queue, a draining pod's end."""
    task = st.tasks[task_index]
    task.depth -= 1
    frame = st.frames[task_index, task.depth]
    op = st.ops[frame.op]
    pod = st.pods[frame.pod]
    service = st.services[pod.service]
    seconds = now - frame.start
    service.in_flight -= 1
    service.finished += 1
    service.seconds += seconds
    st.service_buckets[pod.service, bucket_of(st, seconds)] += 1
    if ok:
        st.edges[op.arg1].done += 1
    else:
        service.failed += 1
        st.edges[op.arg1].failed += 1
    frame.token = -1
    pod.in_flight -= 1
    pod.active -= 1
    if pod.wait_head >= 0 and pod.active < pod.cap:
        waiting = pod.wait_head
        queue_remove(st, frame.pod, waiting)
        pod.active += 1
        to_run(st, waiting)
    if pod.state == DRAINING and pod.in_flight == 0:
        pod_free(st, frame.pod, now)


@njit(cache=True)
def queue_remove(st, pod_index, task_index):
    """Take a task out of a pod's queue."""
    pod, task = st.pods[pod_index], st.tasks[task_index]
    if task.prev >= 0:
        st.tasks[task.prev].next = task.next
    else:
        pod.wait_head = task.next
    if task.next >= 0:
        st.tasks[task.next].prev = task.prev
    else:
        pod.wait_tail = task.prev
    task.next = -1
    task.prev = -1
    task.state = RUNNABLE


@inlined
def request_start(st, task_index, endpoint, base, now):
    """A task begins a request to an endpoint."""
    task = st.tasks[task_index]
    task.endpoint = endpoint
    task.base = base
    task.key = mix(base, np.uint64(FIRST_ATTEMPT))
    task.attempt = FIRST_ATTEMPT
    task.retry = -1
    task.start = now
    task.pc = st.endpoints[endpoint].start
    st.endpoints[endpoint].offered += 1
    st.clock[0].in_flight += 1
    to_run(st, task_index)


@inlined
def request_end(st, task_index, ok, now):
    """Count a finished request, then go on with the scenario, or think, or hand the completion out."""
    clock, task = st.clock[0], st.tasks[task_index]
    endpoint = st.endpoints[task.endpoint]
    seconds = now - task.start
    clock.in_flight -= 1
    if ok:
        endpoint.done += 1
        endpoint.seconds += seconds
        endpoint.slow += seconds > endpoint.slo
        st.endpoint_buckets[task.endpoint, bucket_of(st, seconds)] += 1
    else:
        endpoint.failed += 1
    if task.injected >= 0:
        out = st.completions[clock.completions]
        out.time = now
        out.start = task.start
        out.id = task.injected
        out.endpoint = task.endpoint
        out.ok = ok
        clock.completions += 1
        task_free(st, task_index)
        return
    task.at += 1
    if ok and task.at < st.scenario_at[task.scenario + 1]:
        base = mix(task.base, np.uint64(FOLLOWING_REQUEST))
        request_start(st, task_index, st.scenario_requests[task.at], base, now)
        return
    user = task.user
    task_free(st, task_index)
    if user >= 0:
        think(st, user, now)


@inlined
def think(st, user, now):
    """A user pauses: in the ring where all pauses are equally long, else by a timer."""
    clock = st.clock[0]
    if clock.think_low == clock.think_high:
        slot = st.think[clock.think_tail % len(st.think)]
        slot.time = now + clock.think_low
        slot.user = user
        clock.think_tail += 1
    else:
        share = unit(keyed(clock.seed, STREAM_THINK, user, st.users[user].requests))
        moment = now + clock.think_low + share * (clock.think_high - clock.think_low)
        timer_add(st, moment, TIMER_USER, user, 0)


@inlined
def scenario_start(st, user, base, now):
    """Draw a scenario from the mix and begin its first request; user -1 is the open loop."""
    clock = st.clock[0]
    count = st.mix_probability.shape[1]
    place = unit(mix(base, np.uint64(STREAM_TASK))) * count
    scenario = min(np.int64(place), count - 1)
    if place - scenario >= st.mix_probability[clock.mix, scenario]:
        scenario = st.mix_alias[clock.mix, scenario]
    index = task_new(st)
    task = st.tasks[index]
    task.user = user
    task.scenario = scenario
    task.at = st.scenario_at[scenario]
    request_start(st, index, st.scenario_requests[task.at], base, now)


@inlined
def user_wakes(st, user, now):
    """A user begins the next scenario, or leaves where the plan has fewer users by now."""
    clock = st.clock[0]
    if user >= clock.users:
        st.users[user].active = 0
        return
    number = st.users[user].requests
    st.users[user].requests = number + 1
    scenario_start(st, user, keyed(clock.seed, STREAM_DEMAND, user, number), now)


@njit(cache=True)
def cancel_children(st, task_index, now):
    """End every branch of a task that waits at a join, branches of branches included."""
    task = st.tasks[task_index]
    current = task.first
    while current >= 0:
        child = st.tasks[current]
        if child.state == AT_JOIN and child.first >= 0:
            current = child.first  # children first; we come back through `parent`
            continue
        interrupt(st, current, now)
        while child.depth > 0:
            visit_end(st, current, False, now)
        following, parent = child.right, child.parent
        st.tasks[parent].first = following
        task_free(st, current)
        if following >= 0:
            current = following
        elif parent == task_index:
            current = -1
        else:
            current = parent
    task.first = -1
    task.pending = 0


@njit(cache=True)
def interrupt(st, task_index, now):
    """Take a task off the CPU or out of a queue."""
    task = st.tasks[task_index]
    if task.state == ON_CPU:
        job_cancel(st, task_index, st.frames[task_index, task.depth - 1].pod, now)
    elif task.state == ON_WIRE:
        job_cancel(st, task_index, WIRE_POD, now)
    elif task.state == IN_QUEUE:
        pod = st.frames[task_index, task.depth - 1].pod
        queue_remove(st, pod, task_index)
        st.pods[pod].active += 1  # visit_end gives the slot back
    else:
        drop_from_stack(st, task_index)
    task.state = RUNNABLE


@njit(cache=True)
def drop_from_stack(st, task_index):
    """Take a task off the stack of those that can run."""
    for at in range(st.clock[0].stack):
        if st.stack[at] == task_index:
            st.stack[at] = -1


@njit(cache=True)
def fail(st, task_index, now):
    """The call in progress (top frame, or the request itself) failed: retry, ignore or tell the caller."""
    while True:
        task = st.tasks[task_index]
        if task.depth == 0:
            if task.parent < 0:
                request_end(st, task_index, False, now)
                return
            parent = task.parent
            child_unlink(st, task_index)
            task_free(st, task_index)
            cancel_children(st, parent, now)
            st.tasks[parent].state = RUNNABLE
            task_index = parent
            continue
        frame = st.frames[task_index, task.depth - 1]
        at, retries = frame.op, frame.retries
        visit_end(st, task_index, False, now)
        if retry_or_ignore(st, task_index, at, retries):
            return


@njit(cache=True)
def retry_or_ignore(st, task_index, at, retries):
    """After a failed call by the op at `at`: True where the task goes on."""
    task, op = st.tasks[task_index], st.ops[at]
    if retries > 0:
        task.attempt += 1
        task.key = mix(task.base, np.uint64(task.attempt))
        task.retry = retries - 1
        task.pc = at
        to_run(st, task_index)
        return True
    if op.ignore:
        task.pc = op.exit_pc
        to_run(st, task_index)
        return True
    return False


@njit(cache=True)
def child_unlink(st, task_index):
    """Take a branch out of its parent's list."""
    task = st.tasks[task_index]
    if task.left >= 0:
        st.tasks[task.left].right = task.right
    else:
        st.tasks[task.parent].first = task.right
    if task.right >= 0:
        st.tasks[task.right].left = task.left


@njit(cache=True)
def fork(st, task_index, op):
    """Start the branches of a parallel group; the parent waits at the join."""
    parent = st.tasks[task_index]
    parent.pc = op.exit_pc
    parent.pending = op.arg0
    parent.first = -1
    parent.state = AT_JOIN
    for branch in range(op.arg0 - 1, -1, -1):
        index = task_new(st)
        child = st.tasks[index]
        child.pc = st.branches[op.arg1 + branch]
        child.endpoint = parent.endpoint
        child.user = -1
        child.key = parent.key
        child.base = parent.base
        child.attempt = parent.attempt
        child.parent = task_index
        child.state = RUNNABLE
        child.left = -1
        child.right = parent.first
        if parent.first >= 0:
            st.tasks[parent.first].left = index
        parent.first = index
        to_run(st, index)


@inlined
def enter(st, task_index, pc, now):
    """A call: choose a pod, push a frame. True where the task may go on at once."""
    clock, task, op = st.clock[0], st.tasks[task_index], st.ops[pc]
    st.edges[op.arg1].started += 1
    retries = op.retries if task.retry < 0 else task.retry
    task.retry = -1
    chosen = choose_pod(st, op.arg0, mix(task.key, np.uint64(pc)))
    if chosen < 0:
        st.edges[op.arg1].failed += 1
        st.services[op.arg0].failed += 1
        st.services[op.arg0].finished += 1
        st.service_buckets[op.arg0, 0] += 1
        if op.ignore:
            task.pc = op.exit_pc
            return True
        fail(st, task_index, now)
        return False
    pod = st.pods[chosen]
    frame = st.frames[task_index, task.depth]
    frame.pod = chosen
    frame.op = pc
    frame.start = now
    frame.retries = retries
    frame.token = -1
    task.depth += 1
    task.pc = pc + 1
    pod.in_flight += 1
    st.services[op.arg0].in_flight += 1
    if op.timeout >= 0:
        frame.token = clock.token
        clock.token += 1
        ring = st.rings[op.timeout]
        slot = ring[st.ring_ends[op.timeout, 1] % len(ring)]
        slot.time = now + st.timeouts[op.timeout]
        slot.token = frame.token
        slot.task = task_index
        slot.depth = task.depth - 1
        st.ring_ends[op.timeout, 1] += 1
    if pod.active < pod.cap:
        pod.active += 1
        return True
    task.state = IN_QUEUE
    task.next = -1
    task.prev = pod.wait_tail
    if pod.wait_tail >= 0:
        st.tasks[pod.wait_tail].next = task_index
    else:
        pod.wait_head = task_index
    pod.wait_tail = task_index
    return False


@inlined
def work_starts(st, task_index, pc, op, now):
    """The task's visit asks its pod for CPU time: the mean, or an exponential draw around it."""
    task = st.tasks[task_index]
    work = op.value
    if st.clock[0].demand == EXPONENTIAL:
        work *= -np.log(unit(mix(task.key, np.uint64(pc))))
    task.pc = pc + 1
    job_start(st, task_index, st.frames[task_index, task.depth - 1].pod, work, now)


@inlined
def travels(st, task_index, pc, op, now):
    """The task's call is on its way, for a Weibull draw around the mean."""
    task = st.tasks[task_index]
    draw = -np.log(unit(mix(task.key, np.uint64(pc))))
    seconds = op.value * HOP_SCALE * draw**HOP_POWER
    task.pc = pc + 1
    job_start(st, task_index, WIRE_POD, seconds, now)
    task.state = ON_WIRE


@inlined
def takes_time(st, task_index, pc, op, now):
    """The task works in its pod, or its call travels."""
    if op.op == CPU:
        work_starts(st, task_index, pc, op, now)
    else:
        travels(st, task_index, pc, op, now)


@inlined
def branch_taken(task, op, pc):
    """Where a BRANCH leads: on with its probability, else beyond what it guards."""
    return pc + 1 if unit(mix(task.key, np.uint64(pc))) < op.value else op.arg0


@inlined
def branch_ends(st, task_index):
    """A parallel branch is done; the last one lets its parent go on."""
    parent = st.tasks[task_index].parent
    child_unlink(st, task_index)
    task_free(st, task_index)
    st.tasks[parent].pending -= 1
    if st.tasks[parent].pending == 0:
        st.tasks[parent].state = RUNNABLE
        to_run(st, parent)


@inlined
def run(st, task_index, now):
    """Run a task's program until it waits for something."""
    task = st.tasks[task_index]
    goes_on = True
    while goes_on:
        pc = task.pc
        op = st.ops[pc]
        kind = op.op
        goes_on = False
        if kind == ENTER:
            goes_on = enter(st, task_index, pc, now)
        elif kind in (CPU, HOP):
            takes_time(st, task_index, pc, op, now)
        elif kind == EXIT:
            visit_end(st, task_index, True, now)
            task.pc = pc + 1
            goes_on = True
        elif kind == BRANCH:
            task.pc = branch_taken(task, op, pc)
            goes_on = True
        elif kind == FORK:
            fork(st, task_index, op)
        elif kind == JOIN:
            branch_ends(st, task_index)
        else:
            request_end(st, task_index, True, now)


@inlined
def drain(st, now):
    """Run every task that has become runnable at this moment."""
    clock = st.clock[0]
    while clock.stack > 0:
        clock.stack -= 1
        task = st.stack[clock.stack]
        if task >= 0:
            run(st, task, now)


# ----------------------------------------------------------------------------------------------------- events
@inlined
def on_completion(st, now):
    """The pod's next job has had all its CPU time: its task goes on."""
    index = st.heap[0]
    pod = st.pods[index]
    task_index = pod.root
    pod_advance(pod, now)
    pod.attained = st.tasks[task_index].finish
    pod.root = merge_children(st.tasks, task_index)
    pod.jobs -= 1
    st.tasks[task_index].state = RUNNABLE
    pod_schedule(st, index)
    to_run(st, task_index)


@njit(cache=True)
def on_timeout(st, which, now):
    """A call's time is up: what lies above its frame ends, and the call fails."""
    ring = st.rings[which]
    slot = ring[st.ring_ends[which, 0] % len(ring)]
    st.ring_ends[which, 0] += 1
    task_index, depth, token = slot.task, slot.depth, slot.token
    task = st.tasks[task_index]
    if not task.alive or task.depth <= depth or st.frames[task_index, depth].token != token:
        return
    if task.state == AT_JOIN:
        cancel_children(st, task_index, now)
        task.state = RUNNABLE
    else:
        interrupt(st, task_index, now)
    while task.depth > depth + 1:
        visit_end(st, task_index, False, now)
    fail(st, task_index, now)


@njit(cache=True)
def on_change(st, now):
    """The next line of the load schedule: users, rate, request mix."""
    clock = st.clock[0]
    change = st.changes[clock.change]
    clock.change += 1
    if clock.rate > 0 and clock.arrival_next < INF:
        clock.arrival_need = max((clock.arrival_next - now) * clock.rate, 0.0)
    clock.rate = change.rate
    clock.mix = change.mix
    arrival_schedule(clock, now)
    before = clock.users
    clock.users = change.users
    for user in range(before, change.users):
        if st.users[user].active == 0:
            st.users[user].active = 1
            share = unit(keyed(clock.seed, STREAM_START, user, st.users[user].requests))
            timer_add(st, now + share * clock.spread, TIMER_USER, user, 0)


@inlined
def arrival_schedule(clock, now):
    """Set the moment of the open loop's next arrival from the work it still needs at this rate."""
    clock.arrival_next = now + clock.arrival_need / clock.rate if clock.rate > 0 else INF


@inlined
def on_arrival(st, now):
    """A request of the open loop arrives, and the next one is drawn."""
    clock = st.clock[0]
    number = clock.arrivals
    clock.arrivals = number + 1
    clock.arrival_need = -np.log(unit(keyed(clock.seed, STREAM_ARRIVAL, number, 0)))
    arrival_schedule(clock, now)
    scenario_start(st, -1, keyed(clock.seed, STREAM_DEMAND, number, FROM_ARRIVAL), now)


@njit(cache=True)
def on_timer(st, now):
    """A timer is due: a user goes on, or a pod is ready if it still exists."""
    kind, who, uid = st.timers[0].kind, st.timers[0].who, st.timers[0].uid
    timer_drop(st)
    if kind == TIMER_USER:
        user_wakes(st, who, now)
    elif st.pods[who].state == STARTING and st.pods[who].uid == uid:
        pod_ready(st, who)


@njit(cache=True)
def on_injected(st, arrival, now):
    """A request arrives that Python handed in."""
    clock = st.clock[0]
    index = task_new(st)
    st.tasks[index].user = -1
    st.tasks[index].injected = arrival.id
    request_start(
        st, index, arrival.endpoint, keyed(clock.seed, STREAM_DEMAND, arrival.id, FROM_INJECTED), now
    )


@inlined
def has_room(st, margin):
    """False where the tables of tasks or time-outs might overflow within the next event."""
    clock = st.clock[0]
    if clock.free_tasks < margin:
        return False
    for which in range(len(st.timeouts)):
        if st.ring_ends[which, 1] - st.ring_ends[which, 0] + margin > len(st.rings[which]):
            return False
    return True


@inlined
def first_timeout(st, moment, source):
    """The earliest pending time-out if it comes before `moment`, else `moment` and `source` unchanged."""
    for which in range(len(st.timeouts)):
        if st.ring_ends[which, 0] < st.ring_ends[which, 1]:
            head = st.rings[which][st.ring_ends[which, 0] % len(st.rings[which])].time
            if head < moment:
                moment, source = head, EVENT_TIMEOUT + which
    return moment, source


@inlined
def next_event(st, arrivals):
    """When the next event is, and where it comes from; of simultaneous ones the first in this order."""
    clock = st.clock[0]
    moment, source = INF, EVENT_NONE
    if clock.heap > 0:
        moment, source = st.heap_keys[0], EVENT_COMPLETION
    if clock.think_head < clock.think_tail:
        head = st.think[clock.think_head % len(st.think)].time
        if head < moment:
            moment, source = head, EVENT_THINK
    if clock.timers > 0 and st.timers[0].time < moment:
        moment, source = st.timers[0].time, EVENT_TIMER
    if clock.change < len(st.changes) and st.changes[clock.change].time < moment:
        moment, source = st.changes[clock.change].time, EVENT_CHANGE
    if clock.arrival_next < moment:
        moment, source = clock.arrival_next, EVENT_ARRIVAL
    moment, source = first_timeout(st, moment, source)
    if clock.injected_at < len(arrivals) and arrivals[clock.injected_at].time < moment:
        moment, source = arrivals[clock.injected_at].time, EVENT_INJECTED
    return moment, source


@inlined
def handle(st, source, arrivals, now):
    """Process the event that is due."""
    clock = st.clock[0]
    if source == EVENT_COMPLETION:
        on_completion(st, now)
    elif source == EVENT_THINK:
        user = st.think[clock.think_head % len(st.think)].user
        clock.think_head += 1
        user_wakes(st, user, now)
    elif source == EVENT_TIMER:
        on_timer(st, now)
    elif source == EVENT_CHANGE:
        on_change(st, now)
    elif source == EVENT_ARRIVAL:
        on_arrival(st, now)
    elif source == EVENT_INJECTED:
        on_injected(st, arrivals[clock.injected_at], now)
        clock.injected_at += 1
    else:
        on_timeout(st, source - EVENT_TIMEOUT, now)


@inlined
def loop(st, until, arrivals, margin):
    """Process events one after the other up to and including `until`."""
    clock = st.clock[0]
    while True:
        moment, source = next_event(st, arrivals)
        if moment > until:
            clock.now = until
            return OK
        if not has_room(st, margin):
            return GROW
        clock.now = moment
        clock.events += 1
        handle(st, source, arrivals, moment)
        drain(st, moment)
        if clock.broken:
            return BROKEN


@njit(cache=True)
def unmanaged(st):
    """The same memory without reference counts: counting them took half of the time."""
    return State(
        borrowed(st.clock),
        borrowed(st.ops),
        borrowed(st.branches),
        borrowed(st.timeouts),
        borrowed(st.endpoints),
        borrowed(st.services),
        borrowed(st.edges),
        borrowed(st.pods),
        borrowed(st.tasks),
        borrowed(st.frames),
        borrowed(st.ready),
        borrowed(st.heap),
        borrowed(st.heap_keys),
        borrowed(st.timers),
        borrowed(st.think),
        borrowed(st.rings),
        borrowed(st.ring_ends),
        borrowed(st.users),
        borrowed(st.changes),
        borrowed(st.mix_probability),
        borrowed(st.mix_alias),
        borrowed(st.scenario_at),
        borrowed(st.scenario_requests),
        borrowed(st.stack),
        borrowed(st.completions),
        borrowed(st.bounds),
        borrowed(st.bucket_start),
        borrowed(st.service_buckets),
        borrowed(st.endpoint_buckets),
    )


@njit(cache=True)
def advance(st, until, arrivals, margin):
    """Process every event up to and including `until`.

    Returns OK; GROW where Python must enlarge the arrays and call again; BROKEN where a table overflowed.
    """
    return loop(unmanaged(st), until, borrowed(arrivals), margin)


@njit(cache=True)
def pods_work(st, now, out):
    """CPU-seconds of every pod slot by `now`, the idle share included; 0 for free slots."""
    for index in range(len(st.pods)):
        pod = st.pods[index]
        out[index] = pod_work(pod, now) + pod.idle * (now - pod.created) if pod.state != FREE else 0.0
