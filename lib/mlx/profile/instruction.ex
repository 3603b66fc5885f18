defmodule Mlx.Profile.Instruction do
  @moduledoc """
  One instruction of a program, and what it took.

  ## Fields

    * `:op` - the row of the engine's op table, `"fused"` for a part that MLX compiled, or
      `"call"` for a function of the host. A branch or loop that contains one of these is
      a `"cond"` or `"while"` that the host drives.
    * `:path` - the instructions that it is inside, such as `["while", "body"]`
    * `:fused` - the ops that were compiled to this one
    * `:operands` and `:results` - a list of `{type, shape}` of each, such as
      `{"f32", {2, 3}}`, where it ran last
    * `:bytes` - of the results of one call
    * `:calls` - how often it ran; 0 for what is in a branch that was not taken
    * `:time` - nanoseconds of all calls, with the instructions inside it
    * `:own` - nanoseconds of all calls, without them

  """

  defstruct [:op, path: [], fused: [], operands: [], results: []] ++
              [bytes: 0, calls: 0, time: 0, own: 0]

  @type t :: %__MODULE__{
          op: String.t(),
          path: [String.t()],
          fused: [String.t()],
          operands: [{String.t(), tuple}],
          results: [{String.t(), tuple}],
          bytes: non_neg_integer,
          calls: non_neg_integer,
          time: non_neg_integer,
          own: non_neg_integer
        }
end
