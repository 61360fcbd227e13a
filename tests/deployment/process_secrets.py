"""Which secrets each process needs. Compose, Kubernetes and systemd hand over these and no others."""

WORKER_SECRETS = {
    "WORKER_DATABASE_URL",
    "WORKER_REDIS_URL",
    "WORKER_ENCRYPTION_KEYS",
    "WORKER_CLIENT_ID",
    "WORKER_CLIENT_SECRET",
}
SECRETS = {
    "migrate": {"WORKER_DATABASE_URL"},
    "worker": WORKER_SECRETS,
    "ondemand": WORKER_SECRETS,
    "beat": {"WORKER_REDIS_URL"},
    "flower": {"WORKER_REDIS_URL", "FLOWER_BASIC_AUTH"},
    "exporter": {"WORKER_DATABASE_URL", "WORKER_REDIS_URL"},
}
