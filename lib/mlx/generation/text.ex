defmodule Mlx.Generation.Text do
  @moduledoc false

  # The text of one row as it grows, and where it stops.

  defstruct [:decode, :stops, ids: [], shown: [], kept: ""]

  def new(decode, stops), do: %__MODULE__{decode: decode, stops: stops}

  @doc """
  The text that a token makes certain, and whether a stop string ends it. Nothing of a
  character that is incomplete or of what may become a stop string is certain.
  """
  def push(%__MODULE__{decode: nil} = text, _id), do: {nil, false, text}

  def push(%__MODULE__{decode: decode} = text, id) do
    # Decoders join tokens, so what a token adds shows behind those before it.
    ids = text.ids ++ [id]
    before = decode.(text.shown)
    now = decode.(ids)

    if complete?(now) and byte_size(now) > byte_size(before) do
      new = binary_part(now, byte_size(before), byte_size(now) - byte_size(before))
      shown = Enum.drop(ids, length(text.shown))
      certain(%{text | ids: shown, shown: shown}, text.kept <> new)
    else
      {"", false, %{text | ids: ids}}
    end
  end

  # Decoders put U+FFFD for what is no character yet.
  defp complete?(text), do: String.valid?(text) and not String.ends_with?(text, "\uFFFD")

  defp certain(text, string) do
    case first_stop(string, text.stops) do
      nil ->
        {certain, kept} = hold(string, text.stops)
        {certain, false, %{text | kept: kept}}

      at ->
        {binary_part(string, 0, at), true, %{text | kept: ""}}
    end
  end

  defp first_stop(_string, []), do: nil

  defp first_stop(string, stops) do
    case :binary.match(string, stops) do
      {at, _length} -> at
      :nomatch -> nil
    end
  end

  # The longest end that is the beginning of a stop string.
  defp hold(string, stops) do
    kept = stops |> Enum.map(&overlap(string, &1, byte_size(&1) - 1)) |> Enum.max(fn -> 0 end)
    size = byte_size(string) - kept
    {binary_part(string, 0, size), binary_part(string, size, kept)}
  end

  defp overlap(_string, _stop, 0), do: 0

  defp overlap(string, stop, size) do
    if String.ends_with?(string, binary_part(stop, 0, size)),
      do: size,
      else: overlap(string, stop, size - 1)
  end

  @doc """
  What was held back, if nothing follows.
  """
  def rest(%__MODULE__{decode: nil}), do: nil

  def rest(%__MODULE__{decode: decode} = text) do
    before = decode.(text.shown)
    now = decode.(text.ids)
    text.kept <> binary_part(now, byte_size(before), max(byte_size(now) - byte_size(before), 0))
  end
end
