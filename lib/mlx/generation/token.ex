defmodule Mlx.Generation.Token do
  @moduledoc """
  A token that a model has given.

  ## Fields

    * `:row` - of which prompt of a batch it is, from 0
    * `:id` - its number
    * `:text` - the text that is certain now, with `:decode` in `Mlx.Generation.new/4`, else
      `nil`. It is empty as long as a character is incomplete or a stop string has begun.
    * `:finish` - `nil`, or why it is the last one of its row: `:stop_token`,
      `:stop_string` or `:length`

  """

  @enforce_keys [:row, :id]
  defstruct [:row, :id, :text, :finish]

  @type finish :: :stop_token | :stop_string | :length

  @type t :: %__MODULE__{
          row: non_neg_integer,
          id: non_neg_integer,
          text: String.t() | nil,
          finish: finish | nil
        }
end
