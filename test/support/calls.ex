defmodule Mlx.Calls do
  @moduledoc """
  Notes what compiled functions call in the calling process, and with which values.
  """

  import ExUnit.Assertions
  import Nx.Defn

  @doc """
  The data, with a note of each time that it is computed.
  """
  deftransform(noted(data, tag), do: Nx.io_call(data, &note(tag, &1)))

  @doc """
  Notes a value. What is noted of it is computed with Nx.
  """
  def note(tag, value) do
    widest = List.last(Mlx.TestDevice.types([:f32, :f64]))

    seen =
      for tensor <- Nx.Defn.Composite.flatten_list([value]) do
        plain = Nx.devectorize(tensor)
        described = Map.take(tensor, [:type, :shape, :names, :vectorized_axes])
        total = plain |> Nx.as_type(widest) |> Nx.sum() |> Nx.to_number()
        Map.merge(described, %{numbers: Nx.to_flat_list(plain), total: total})
      end

    Process.put(__MODULE__, [{tag, seen, self()} | Process.get(__MODULE__, [])])
  end

  @doc """
  Forgets all notes.
  """
  def start, do: Process.delete(__MODULE__)

  @doc """
  The notes of this process, the last one first.
  """
  def made, do: Process.get(__MODULE__, [])

  @doc """
  The result of a function and the notes of its calls in order.
  """
  def calls(fun, args, options) do
    start()
    result = Nx.Defn.jit_apply(fun, args, options)
    {result, Enum.reverse(made())}
  end

  @doc """
  Asserts that a function makes the same calls as with `Nx.Defn.Evaluator`, with the same
  values, and gives the same. Returns the tags of the notes.
  """
  def assert_same_calls(fun, args, options \\ []) do
    {expected, calls} = calls(fun, args, [compiler: Nx.Defn.Evaluator] ++ options)
    {got, compiled} = calls(fun, args, [compiler: Mlx.Compiler] ++ options)
    assert compiled == calls
    Mlx.Oracle.assert_identical(got, expected)
    Enum.map(calls, &elem(&1, 0))
  end
end
