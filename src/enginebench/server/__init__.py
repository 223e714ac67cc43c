"""Triton: model repository, launch, supervision, readiness and control plane. The measuring client is not here."""
