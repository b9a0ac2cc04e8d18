"""The text of ``tizgin profile new``: a meter profile that loads, with the advice that a register list never gives."""

from __future__ import annotations

_TEXT = """\
# Profile of one meter model. Fill it in from the maker's register list, then:
#
#   tizgin profile test FILE                                   rules and golden vectors
#   tizgin profile test FILE --url modbus://192.0.2.7:502/1    and every point read from a real meter
#
# tizgin profile schema prints all keys; the shipped profiles are examples (tizgin profile show eastron-sdm630 --json).
schema: 1
id: {id}                   # the file's name, with - for _
version: 1                 # one more at each change that alters a value
kind: meter
vendor: Maker
model: Model
products: []               # order numbers it was seen on
status: community          # verified: seen on a real meter; documented: two agreeing sources
sources:
  - {{name: "Title, number and revision of the register list", note: "pages"}}
notes: []                  # what an installer has to know: settings, transformer ratios, resettable counters

# What a point has unless it says otherwise.
# table: holding (function 3) or input (function 4). word_order: big = the most significant word has the lower address.
defaults: {{table: holding, type: f32, word_order: big}}

link:
  max_registers: 60        # most registers in one request; makers state it, 125 is the protocol's limit
  max_hole: 8              # unwanted registers that may be read along between two points
  # forbidden: [{{table: holding, first: 96, last: 111}}]    registers that must never be read

# Addresses are those on the wire, counted from 0. Lists often count from 1, or write 40001 for holding register 0:
# there subtract 1 (or 40001). Where numbers come out as nonsense: tizgin probe URL --guess tries one lower and higher,
# and the other word order.
#
# Values come out in W, Wh, var, varh, V, A, Hz: 'scale' is what one count of the device is in that unit.
points:
  - {{id: voltage_l1_n_v, addr: 0, min: 0, max: 1000}}
  - {{id: current_l1_a, addr: 2, min: 0, max: 100000}}
  - {{id: power_w, addr: 4, scale: 1000, poll: fast, min: -2000000000, max: 2000000000}}    # the list says kW
  - {{id: frequency_hz, addr: 6, min: 40, max: 70}}
  # A counter says at which raw count it starts again: a number, 'width' (its registers are full) or 'unknown'.
  - {{id: energy_import_wh, addr: 8, type: u32, scale: 10, kind: counter, rollover: width, poll: boundary}}
  - {{id: serial_number, addr: 100, type: u32, kind: text, poll: once}}

# Registers that tell this model from others: a device code, a setting with an unusual value.
identify: []
#  - {{table: holding, addr: 50, type: u16, expect: [112], note: "device code"}}

# Sums that must hold in every reading.
checks: []
#  - {{sum: [power_l1_w, power_l2_w, power_l3_w], equals: power_w}}

# Golden vectors: registers as on the wire, and the values they mean. Take them from the list's examples, or from a
# reading that was compared with the meter's own display.
tests:
  - {{table: holding, addr: 0, words: "4366 8000", expect: {{voltage_l1_n_v: "230.5"}}}}
  - {{table: holding, addr: 4, words: "42b8 0000", expect: {{power_w: 92000}}}}
  - {{table: holding, addr: 8, words: "0001 e240", expect: {{energy_import_wh: 1234560}}}}
"""


def skeleton(profile_id: str) -> str:
    """The text of a new profile of that id."""
    return _TEXT.format(id=profile_id)
