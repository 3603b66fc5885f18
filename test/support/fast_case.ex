defmodule Mlx.FastCase do
  @moduledoc """
  What the tests of `Mlx.Fast` share.
  """

  import ExUnit.Assertions

  @doc """
  Options of `Mlx.Oracle.assert_same/3`. Kernels round halves on the way, where Nx's composition
  goes on in f32.
  """
  def close, do: [ulps: 16, scale: 1.0, signed_zero: false]

  @doc """
  Numbers without a pattern, between -2 and 2.
  """
  def waves(type, shape, opts \\ []) do
    Nx.iota(shape, [type: :f32, backend: Nx.BinaryBackend] ++ opts)
    |> Nx.multiply(1.7)
    |> Nx.sin()
    |> Nx.multiply(2)
    |> Nx.as_type(type)
  end

  @doc """
  Asserts that a call is refused with a message that contains this one.
  """
  def refused(message, fun), do: assert_raise(ArgumentError, ~r/#{Regex.escape(message)}/, fun)
end
