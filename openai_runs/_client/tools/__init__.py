"""Local tools: functions as definitions, and the calls of them. No requests in here."""
