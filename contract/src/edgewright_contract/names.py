"""Names on the wire: API group, labels, annotations, audiences, limits. Each is defined here and nowhere else."""

from typing import Final

GROUP: Final = "edgewright.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

COMPRESSED_MODELS: Final = "compressedmodels"
EDGE_NODES: Final = "edgenodes"

NAMESPACE: Final = "edgewright"
"""Where operator, gateway, agents and the heartbeat Leases live."""

LABEL_AGENT: Final = f"{GROUP}/agent"
"""Node label; "true" asks the operator to create an EdgeNode for the Node."""

LABEL_HARDWARE_CLASS: Final = f"{GROUP}/hardware-class"
"""Node label; overrides the hardware class that the agent computed."""

ANNOTATION_APPROVE: Final = f"{GROUP}/approve"
"""CompressedModel annotation `<manifest>/<wave>/<generation>`: lets that wave begin."""

ANNOTATION_UNQUARANTINE: Final = f"{GROUP}/unquarantine"
"""CompressedModel annotation `<manifest>/<since>`, as both stand in status.quarantined: it may be rolled out again.

The time is part of it, so that an annotation that stays does not free the next failure."""

ANNOTATION_RESUME: Final = f"{GROUP}/resume"
"""CompressedModel annotation `<since>` of status.paused: the rollout goes on and judges anew."""

ANNOTATION_NODE_SELECTOR: Final = f"{GROUP}/node-selector"
"""Namespace annotation, ANDed with every nodeSelector of the namespace (as PodNodeSelector does)."""

ANNOTATION_REQUIRE_APPROVAL: Final = f"{GROUP}/require-approval"
"""Namespace annotation; "true" makes spec.rollout.approval a duty."""

GATEWAY_AUDIENCE: Final = "edgewright-gateway"
"""Audience of the tokens that the model gateway accepts."""

EXTRA_NODE_NAME: Final = "authentication.kubernetes.io/node-name"
"""Key of userInfo.extra that ties a ServiceAccount token to a Node (KEP-4193)."""

EXTRA_NODE_UID: Final = "authentication.kubernetes.io/node-uid"

TAG_SEQUENCE: Final = "edgewright.sequence"
"""MLflow model-version tag: the release's sequence, so that the next one is greater."""

TAG_VARIANTS: Final = "edgewright.variants"
"""MLflow model-version tag: names of the variants, separated by commas, for lists; believed by nobody."""

TAG_MANIFEST: Final = "edgewright.manifest"
"""MLflow model-version tag; set last when publishing. A version without it does not exist for the operator."""

OPERATOR_LEASE: Final = "edgewright-operator"
"""Lease that the one acting operator holds."""

HEARTBEAT_SECONDS: Final = 300
"""An agent renews its Lease about this often (± 20 %); it is stale after three."""

RELEASE_FOLDER: Final = "release"
"""Folder below the artifact root that holds exactly the signed files."""

RELEASE_FILE: Final = "release.json"
GOLDEN_FILE: Final = "golden.u16"
CARD_FILE: Final = "card.md"
VARIANT_FOLDER: Final = "variants"

MANIFEST_FILE: Final = "manifest.json"
"""The signature bundle, beside the release folder; its SHA-256 is the release's identity (`manifest`)."""

TRUST_FILE: Final = "trust.json"

MAX_MANIFEST_BYTES: Final = 64 * 1024
MAX_RELEASE_BYTES: Final = 4 * 1024 * 1024
MAX_GOLDEN_BYTES: Final = 1024 * 1024
MAX_TRUST_BYTES: Final = 64 * 1024
MAX_MODEL_BYTES: Final = 64 * 1024 * 1024
"""Largest file of a release; a variant's ONNX file is the largest kind."""
