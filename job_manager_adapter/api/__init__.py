"""HTTP for users: `/api/v1`, its rights, its errors and its description."""
