defmodule Mlx.Profile.Table do
  @moduledoc false

  alias Mlx.Profile
  alias Mlx.Profile.Instruction

  # Names of one fused part that are printed; a part may have hundreds.
  @names 6

  def new(%Profile{instructions: instructions}, opts) do
    opts = Keyword.validate!(opts, sort: :own, limit: :infinity)
    whole = instructions |> Enum.map(& &1.own) |> Enum.sum()
    {shown, rest} = instructions |> sort(opts[:sort]) |> split(opts[:limit])
    lines = Enum.map(shown, &[numbers(&1, whole), "  ", describe(&1), "\n"])
    IO.iodata_to_binary([head(), lines, rest(rest, whole)])
  end

  defp sort(instructions, :program), do: instructions
  defp sort(instructions, :own), do: Enum.sort_by(instructions, & &1.own, :desc)

  defp sort(_instructions, other) do
    raise ArgumentError, "the option :sort is :own or :program, got: #{inspect(other)}"
  end

  defp split(instructions, :infinity), do: {instructions, []}

  defp split(instructions, limit) when is_integer(limit) and limit >= 0,
    do: Enum.split(instructions, limit)

  defp split(_instructions, other) do
    raise ArgumentError, "the option :limit is a number or :infinity, got: #{inspect(other)}"
  end

  defp head, do: [columns("µs", "%", "calls", "bytes"), "  instruction\n"]

  defp rest([], _whole), do: []

  defp rest(rest, whole) do
    own = rest |> Enum.map(& &1.own) |> Enum.sum()
    [columns(us(own), percent(own, whole), "", ""), "  #{length(rest)} more\n"]
  end

  defp numbers(%Instruction{own: own} = instruction, whole),
    do: columns(us(own), percent(own, whole), instruction.calls, instruction.bytes)

  defp columns(time, share, calls, bytes) do
    for {value, width} <- [{time, 10}, {share, 7}, {calls, 9}, {bytes, 11}],
        do: value |> to_string() |> String.pad_leading(width)
  end

  defp describe(%Instruction{path: path, op: op} = instruction) do
    prefix = if path == [], do: "", else: "#{Enum.join(path, ".")}: "
    results = if instruction.results == [], do: "", else: " -> #{list(instruction.results)}"
    "#{prefix}#{op}(#{list(instruction.operands)})#{results}#{fused(instruction.fused)}"
  end

  defp fused([]), do: ""

  defp fused(names) do
    more = if length(names) > @names, do: ", …"
    " of #{length(names)}: #{names |> Enum.take(@names) |> Enum.join(", ")}#{more}"
  end

  defp list(signatures), do: Enum.map_join(signatures, ", ", &signature/1)

  @doc """
  A type and a shape as text, such as `f32[2][3]`.
  """
  def signature({type, shape}), do: "#{type}#{shape |> Tuple.to_list() |> Enum.map(&"[#{&1}]")}"

  defp us(nanoseconds), do: :erlang.float_to_binary(nanoseconds / 1000, decimals: 1)
  defp percent(_time, 0), do: "0.0"
  defp percent(time, whole), do: :erlang.float_to_binary(100 * time / whole, decimals: 1)
end
