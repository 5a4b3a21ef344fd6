"""The Kubernetes HorizontalPodAutoscaler (autoscaling/v2, v1.36): its rules as pure functions, and a policy.

    measured = measure(spec, current, pods, now)                # pods and their metrics -> a recommendation
    decision = reconcile(spec, state, current, measured, now)   # limits, windows, rates -> replicas
    state = decision.state                                      # and, once the replicas are written:
    state = store_scale_event(state, spec, current, decision.target, now)

Amounts are integers in one unit per resource (millicores; any unit of memory); times are seconds on one
clock. The rules read no clock, call no server and log nothing. A `Source:` names the function of Kubernetes
v1.36, pkg/controller/podautoscaler, that a rule follows.
"""
