"""claude-sidecar: makes a pod's ``.claude`` directory outlive the pod."""

__version__ = "0.1.0"
