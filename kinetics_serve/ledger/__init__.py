"""Tenants, their quotas, and what they spent: SQL through SQLAlchemy, on SQLite or PostgreSQL."""
