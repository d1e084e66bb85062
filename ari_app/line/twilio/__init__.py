"""Calls of Twilio's, whose sound comes over Media Streams; see docs/twilio.md."""
