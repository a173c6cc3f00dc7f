"""How many requests may be sent, and when: fixed limits, and limits that are learnt."""
