defmodule Mlx.Weights.JSON do
  @moduledoc false

  # JSON of strangers. What would take much more memory than its text is refused: deep
  # nesting, long numbers, and, where none are to be expected, long arrays.

  @doc """
  The value of a text, with the deepest nesting and the longest array that it may have.
  """
  def decode(text, depth, length) do
    decoders = [
      array_start: &start(&1, depth, []),
      array_push: &array_push(&1, &2, length),
      array_finish: fn {_depth, _count, values}, outer -> {Enum.reverse(values), outer} end,
      object_start: &start(&1, depth, %{}),
      object_push: &object_push/3,
      object_finish: fn {_depth, _count, map}, outer -> {map, outer} end,
      integer: &integer/1,
      float: &float/1
    ]

    case JSON.decode(text, {0, 0, nil}, decoders) do
      {value, _acc, rest} ->
        if String.trim(rest) == "", do: {:ok, value}, else: {:error, "has more than one value"}

      {:error, _reason} ->
        {:error, "is no JSON"}
    end
  catch
    {__MODULE__, reason} -> {:error, reason}
  end

  defp start({depth, _count, _values}, most, _empty) when depth >= most, do: refuse("is nested")
  defp start({depth, _count, _values}, _most, empty), do: {depth + 1, 0, empty}

  defp array_push(_value, {_depth, most, _values}, most), do: refuse("has a long array")
  defp array_push(value, {depth, count, values}, _), do: {depth, count + 1, [value | values]}

  defp object_push(name, value, {depth, count, map}) do
    if is_map_key(map, name), do: refuse("has a name twice")
    {depth, count + 1, Map.put(map, name, value)}
  end

  defp integer(digits) when byte_size(digits) > 20, do: refuse("has a long number")
  defp integer(digits), do: String.to_integer(digits)

  # One that is beyond those of the machine is no JSON to the decoder.
  defp float(digits) when byte_size(digits) > 64, do: refuse("has a long number")
  defp float(digits), do: String.to_float(digits)

  defp refuse(reason), do: throw({__MODULE__, reason})
end
