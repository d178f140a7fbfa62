"""HTTP for pilots: enrolment, WebSocket, long-poll and files by signed link."""
