"""The canned answers of this example: question -> answer. A real worker would ask a language model instead."""

ANSWERS = {
    "What if my server dies?": """\
Nothing that you would notice in this text. Each word that you read is an event of its own, written to a Redis \
Stream by a worker that knows of no page and of no server. Several servers follow the stream, and each sends the \
words to its own pages. If yours is killed now, your page connects to another one and says which session it had, \
and which event it has seen last.

The new server finds the session in Redis, takes it over, and sends every word that you have missed: in order, \
each of them once. Your page keeps its id and its rooms, nobody has to ask the question again, and the worker \
never learns that anything has happened. That is all.""",
    "What about a tunnel?": """\
Then the words wait for you. Your session stays in Redis for two minutes, while the stream keeps what is said in \
your room. When you come out of the tunnel, your phone may well reach another server by another network. That does \
not matter, since any server can tell what you have missed.

First you get the words that you have missed, then those that are just being written, without a gap between the \
two. If the tunnel was too long, you are told that this is a new session, and the page loads the text from the \
history instead. It never has to guess.""",
    "Who keeps the count?": """\
Each word has a number. Below this answer your page counts the words that came, those that it missed and those \
that came twice, and at the end the worker says how many it has sent. Kill the server as often as you like: the \
first number becomes the same as the last one, and the other two stay zero.""",
}
