"""Placeholder for import order; replaced below."""

from __future__ import annotations

from fastapi import FastAPI

from central.service import CentralService


def install_pages(app: FastAPI, service: CentralService) -> None:
    """Nothing yet."""
