"""Which dashboards there are: titles, units and queries of their panels."""

from __future__ import annotations

from typing import Final

from generators.panels import Board, Panel, Shape

_M: Final = 'model=~"$model"'
_I: Final = 'instance=~"$instance"'
_DONE: Final = "edgewright_inferences_total"
_TIMES: Final = f"edgewright_inference_seconds_bucket{{{_I}}}"
_ENERGY: Final = "edgewright_appliance_energy_joules_total"
_AGE: Final = "max by (node) (edgewright_node_heartbeat_age_seconds)"


def _quantile(share: str, buckets: str, by: str) -> str:
    """`buckets`: the selector of the histogram's series; `by`: labels to keep, `le` among them."""
    return f"histogram_quantile({share}, sum by ({by}) (rate({buckets}[$__rate_interval])))"


_ROLLOUT: Final = Board(
    "edgewright-rollout",
    "Edgewright: rollouts and fleet",
    (("model", "edgewright_nodes"),),
    (
        (
            "Rollouts",
            (
                Panel(
                    "Nodes by state",
                    "Selected nodes of each state. Offline nodes are counted, block nothing and catch up later.",
                    "short",
                    ((f"sum by (state) (max by (model, state) (edgewright_nodes{{{_M}}}))", "{{state}}"),),
                    Shape.STACK,
                ),
                Panel(
                    "Share that is live",
                    "Live nodes among those that are selected and reachable.",
                    "percentunit",
                    (
                        (
                            f'sum by (model) (edgewright_nodes{{{_M}, state="live"}})'
                            f' / sum by (model) (edgewright_nodes{{{_M}, state!="offline"}})',
                            "{{model}}",
                        ),
                    ),
                    Shape.NUMBER,
                ),
                Panel(
                    "Wave",
                    "Which wave each rollout is in, from 1.",
                    "short",
                    ((f"max by (model) (edgewright_rollout_wave{{{_M}}}) + 1", "{{model}}"),),
                ),
                Panel(
                    "Conditions that are true",
                    "Ready, Reconciling, Stalled, Degraded of each CompressedModel; `kubectl edgewright why` says why.",
                    "short",
                    ((f"max by (model, state) (edgewright_condition{{{_M}}}) == 1", "{{model}} {{state}}"),),
                    Shape.TABLE,
                ),
            ),
        ),
        (
            "Gates",
            (
                Panel(
                    "Measured against limits",
                    "Each check of the current gate. A check without a value has no samples yet: that is not a pass.",
                    "short",
                    (
                        (f"max by (model, check) (edgewright_gate_value{{{_M}}})", "{{check}} of {{model}}"),
                        (f"max by (model, check) (edgewright_gate_limit{{{_M}}})", "limit of {{check}}"),
                    ),
                ),
                Panel(
                    "Verdicts in the last hour",
                    "How often gates came to each verdict.",
                    "short",
                    (("sum by (verdict) (increase(edgewright_gate_verdicts_total[1h]))", "{{verdict}}"),),
                ),
                Panel(
                    "Rollbacks since the operator began",
                    "Releases that were sent back, by reason. Empty: none was.",
                    "short",
                    (("sum by (reason) (edgewright_rollbacks_total)", "{{reason}}"),),
                    Shape.TABLE,
                ),
            ),
        ),
        (
            "Nodes, as the operator sees them",
            (
                Panel(
                    "Nodes not heard of for 15 minutes",
                    "No value at all means that no operator acts, not that all is well.",
                    "short",
                    ((f"sum({_AGE} > bool 900)", "stale"), (f"count({_AGE})", "all")),
                ),
                Panel(
                    "Oldest heartbeats", "The ten nodes longest unheard of.", "s", ((f"topk(10, {_AGE})", "{{node}}"),)
                ),
                Panel(
                    "Slowest nodes",
                    "The ten highest p95 that nodes report, whether or not they can be scraped.",
                    "s",
                    (
                        (
                            f"topk(10, max by (model, node) (edgewright_node_inference_p95_seconds{{{_M}}}))",
                            "{{node}} {{model}}",
                        ),
                    ),
                ),
            ),
        ),
        (
            "Operator and gateway",
            (
                Panel(
                    "Time to decide (p95)",
                    "Seconds of deciding one model.",
                    "s",
                    ((_quantile("0.95", "edgewright_reconcile_seconds_bucket", "le"), "p95"),),
                ),
                Panel(
                    "Requests to the API server",
                    "By outcome; refused and unanswered ones are tried again.",
                    "reqps",
                    (("sum by (outcome) (rate(edgewright_api_requests_total[$__rate_interval]))", "{{outcome}}"),),
                ),
                Panel(
                    "Gateway answers",
                    "By route and status code.",
                    "reqps",
                    (
                        (
                            "sum by (route, code) (rate(edgewright_gateway_requests_total[$__rate_interval]))",
                            "{{route}} {{code}}",
                        ),
                    ),
                ),
                Panel(
                    "Gateway bytes sent",
                    "What nodes fetch.",
                    "Bps",
                    (("sum(rate(edgewright_gateway_sent_bytes_total[$__rate_interval]))", "sent"),),
                ),
            ),
        ),
    ),
)

_NODE: Final = Board(
    "edgewright-node",
    "Edgewright: one node",
    (("instance", "edgewright_model_info"),),
    (
        (
            "Models",
            (
                Panel(
                    "What is live",
                    "Release and variant of each model.",
                    "short",
                    ((f"max by (instance, model, release, variant) (edgewright_model_info{{{_I}}})", "{{model}}"),),
                    Shape.TABLE,
                ),
                Panel(
                    "States held",
                    "Live, and Shadow while a new release runs beside it.",
                    "short",
                    ((f"max by (model, state) (edgewright_model_state{{{_I}}})", "{{model}} {{state}}"),),
                ),
                Panel(
                    "Time of swaps (p95)",
                    "Seconds from one release to the next, of all swaps since the server began; too rare for a rate.",
                    "s",
                    (
                        (
                            f"histogram_quantile(0.95, sum by (model, le) (edgewright_swap_seconds_bucket{{{_I}}}))",
                            "{{model}}",
                        ),
                    ),
                ),
                Panel(
                    "Loads that failed",
                    "Since the server began.",
                    "short",
                    ((f"sum by (instance) (edgewright_selftest_failures_total{{{_I}}})", "{{instance}}"),),
                    Shape.NUMBER,
                ),
            ),
        ),
        (
            "Inference",
            (
                Panel(
                    "Windows by outcome",
                    "Answered, refused as invalid, failed, and turned away under overload.",
                    "reqps",
                    (
                        (
                            f"sum by (outcome) (rate(edgewright_inferences_total{{{_I}}}[$__rate_interval]))",
                            "{{outcome}}",
                        ),
                    ),
                ),
                Panel(
                    "Time in the engine",
                    "Seconds of one window.",
                    "s",
                    tuple(
                        (_quantile(share, _TIMES, "model, le"), f"{{{{model}}}} {label}")
                        for share, label in (("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99"))
                    ),
                ),
                Panel(
                    "Share that failed",
                    "Errors among answered windows; invalid requests are the caller's.",
                    "percentunit",
                    (
                        (
                            f'sum by (model) (rate({_DONE}{{{_I}, outcome="error"}}[$__rate_interval]))'
                            f' / sum by (model) (rate({_DONE}{{{_I}, outcome=~"ok|error"}}[$__rate_interval]))',
                            "{{model}}",
                        ),
                    ),
                ),
            ),
        ),
        (
            "Beside what the release was validated on",
            (
                Panel(
                    "Windows left unknown",
                    "Share of own windows whose highest probability is below the release's threshold.",
                    "percentunit",
                    ((f"max by (instance, model) (edgewright_unknown_ratio{{{_I}}})", "{{model}}"),),
                ),
                Panel(
                    "Drift",
                    "Population stability index of confidence and mean power, less chance; from 40 windows on.",
                    "short",
                    ((f"max by (instance, model, of) (edgewright_drift_score{{{_I}}})", "{{of}} of {{model}}"),),
                ),
            ),
        ),
        (
            "Readings",
            (
                Panel(
                    "Power by appliance",
                    "Watts that the live model attributes now.",
                    "watt",
                    ((f"sum by (appliance) (edgewright_appliance_power_watts{{{_I}}})", "{{appliance}}"),),
                    Shape.STACK,
                ),
                Panel(
                    "Energy by appliance in 24 hours",
                    "Attributed, in kWh.",
                    "kwatth",
                    (
                        (
                            f"sum by (appliance) (increase({_ENERGY}{{{_I}}}[24h])) / 3.6e6",
                            "{{appliance}}",
                        ),
                    ),
                ),
                Panel(
                    "Seconds without a reading",
                    "Of each second, how much the source left out.",
                    "percentunit",
                    ((f"sum by (instance) (rate(edgewright_source_gap_seconds_total{{{_I}}}[5m]))", "{{instance}}"),),
                ),
            ),
        ),
    ),
)

BOARDS: Final = (_ROLLOUT, _NODE)
