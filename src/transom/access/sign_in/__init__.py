"""Every way in: mailed links, passkeys, providers; and the sessions that they lead to."""
