defmodule Mlx.OwnVm do
  @moduledoc """
  Runs code in a VM of its own, which may end or grow as it likes.
  """

  import ExUnit.Assertions

  @alive "alive"

  # `refused` gives the kind of error that a function raises, and `alive` says that the
  # VM still computes.
  @start """
  {:ok, _} = Application.ensure_all_started(:mlx)
  Mlx.TestDevice.start()
  Nx.default_backend(Mlx.Backend)
  alive = fn -> 6 = Nx.to_number(Nx.sum(Nx.tensor([1, 2, 3]))); IO.puts("#{@alive}") end
  refused = fn fun -> try do fun.(); raise "was not refused" rescue e in Mlx.Error -> e.kind end end
  """

  @doc """
  Gives what the code printed and the status with which the VM ended.
  """
  def run(code) do
    {executable, args} = command(code)
    System.cmd(executable, args, stderr_to_stdout: true)
  end

  @doc """
  Gives the program, and its arguments, that runs the code.
  """
  def command(code) do
    args = Enum.flat_map(paths(), &["-pa", &1]) ++ ["-e", @start <> code]
    {System.find_executable("elixir"), args}
  end

  @doc """
  The folders of code that such a VM is given: all but those of OTP itself.
  """
  def paths do
    otp = to_string(:code.root_dir())

    for path <- :code.get_path(),
        path = to_string(path),
        not String.starts_with?(path, otp),
        do: path
  end

  @doc """
  Asserts that the VM computes after the code as before.
  """
  def assert_alive(code) do
    {output, status} = run(code <> "\nalive.()")
    assert {status, output =~ @alive} == {0, true}, output
  end
end
