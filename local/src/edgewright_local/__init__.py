"""The whole platform on one machine: real kube-apiserver, etcd, MLflow and Prometheus as child processes on loopback.

Order of use: `binaries` builds, `processes` starts and stops, the servers stand on both; the demo stands on these.
"""
